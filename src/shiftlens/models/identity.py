"""Who a model is, by content: the part of the ledger key that keeps base and tuned apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shiftlens.support.whole_files import write_text

WEIGHTS = ("*.safetensors", "config.json", "adapter_config.json")
TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "merges.txt",
)  # fmt: skip
"""Files that decide how a text is cut into tokens."""


@dataclass(frozen=True)
class Identity:
    """What makes two loaded models the same model.

    Args:
        source: where it came from, as written in the configuration; for people, not part of the hash.
        fingerprint: SHA-256 over the weights and configuration files, base and adapter included.
        revision: hub revision asked for, ``""`` where there is none; for people, not part of the hash.
        dtype: the floating-point type the model is computed in.
        tokenizer: SHA-256 over the tokenizer's files, ``""`` if not known. Not part of the hash: attributions are
            kept by token ids. What is kept by words must ask for it.
    """

    source: str
    fingerprint: str
    revision: str
    dtype: str
    tokenizer: str = ""

    @property
    def hash(self) -> str:
        """32 hex digits; equal for equal weights in an equal dtype, wherever they are stored.

        Example:
            >>> a = Identity("here", "f00", "", "float32")
            >>> a.hash == Identity("there", "f00", "", "float32").hash
            True
            >>> a.hash == Identity("here", "f00", "", "bfloat16").hash
            False
        """
        return digest({"fingerprint": self.fingerprint, "dtype": self.dtype})

    def to_dict(self) -> dict[str, str]:
        """The fields as plain values, for provenance records."""
        return asdict(self)


def digest(value: object) -> str:
    """32 hex digits of the SHA-256 of ``value`` as canonical JSON.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(folder: Path, cache: Path, patterns: Sequence[str] = WEIGHTS) -> str:
    """SHA-256 over the weights and configuration files of a model folder.

    Hashing 14 GB takes half a minute, so each file's hash is remembered by path, size and
    modification time; a changed file is hashed again.

    Args:
        folder: a Hugging Face model or adapter folder.
        cache: folder for the remembered hashes.
        patterns: which files; :data:`TOKENIZER` for those of its tokenizer.

    Returns:
        64 hex digits.
    """
    files = sorted(path for pattern in patterns for path in folder.glob(pattern))
    parts = [(path.name, _remembered_sha256(path.resolve(), cache)) for path in files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _remembered_sha256(path: Path, cache: Path) -> str:
    stat = path.stat()
    note = cache / "hashes" / digest([str(path), stat.st_size, stat.st_mtime_ns])
    if note.exists():
        return note.read_text()
    value = file_sha256(path)
    write_text(note, value)
    return value
