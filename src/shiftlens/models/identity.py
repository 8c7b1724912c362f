"""Content hash of a model: the part of the ledger key that keeps base and tuned apart."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shiftlens.errors import SourceError
from shiftlens.support.whole_files import write_text

WEIGHTS = ("*.safetensors", "config.json", "adapter_config.json")
"""Patterns of the files that hold weights and configuration."""
TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "merges.txt",
)  # fmt: skip
"""Patterns of the files that decide how a text is cut into tokens."""
SETTLED_NS = 2_000_000_000
"""Nanoseconds since a file's last change after which its hash is remembered. The clocks of file systems are
coarse (up to two seconds), and a second change within one tick would leave the file's stamp as it was."""

Stamp = tuple[int, ...]
"""Size, modification time, change time and inode of a file."""


@dataclass(frozen=True)
class Identity:
    """Names a model by content: two loaded models are the same model if their hashes are equal.

    Args:
        source: Source string of the configuration; for people, not part of the hash.
        fingerprint: SHA-256 over the weights and configuration files, base and adapter included.
        revision: Requested hub revision, ``""`` where there is none; for people, not part of the hash.
        dtype: Floating-point type in which the model is computed.
        tokenizer: SHA-256 over the tokenizer's files, ``""`` if not known. Not part of the hash, because
            attributions are stored by token ids; whatever is stored by words must compare it too.
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
        """Return the fields as plain values, for provenance records."""
        return asdict(self)

    def same_files(self, other: Identity) -> bool:
        """Whether weights, configuration and tokenizer files have the same content in both identities.

        Args:
            other: Identity to compare with.
        """
        return (self.fingerprint, self.tokenizer) == (other.fingerprint, other.tokenizer)


def digest(value: object) -> str:
    """Hash a value: 32 hex digits of the SHA-256 of its canonical JSON.

    Args:
        value: Anything that JSON can express.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_sha256(path: Path) -> str:
    """Hash the bytes of a file.

    Args:
        path: File to read.

    Returns:
        64 hex digits of the SHA-256.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(folder: Path, cache: Path, patterns: Sequence[str] = WEIGHTS) -> str:
    """Hash the weights and configuration files of a model folder.

    Hashing 14 GB takes half a minute, so the hash of each file is remembered by the file's path and stamp. A
    file that was written since has another stamp, also if its size and modification time were restored, and is
    hashed again.

    Args:
        folder: Hugging Face model or adapter folder.
        cache: Folder for the remembered hashes.
        patterns: Patterns of the files to hash; :data:`TOKENIZER` for those of the tokenizer.

    Returns:
        64 hex digits of the SHA-256.

    Raises:
        SourceError: A file was written while its hash was computed.
    """
    hashes = [(path.name, _remembered_sha256(path.resolve(), cache)) for path in _matching(folder, patterns)]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def stamps(folder: Path) -> dict[str, Stamp]:
    """Stamp every file of a model folder that an identity depends on, without reading the files.

    Args:
        folder: Hugging Face model or adapter folder.

    Returns:
        Name of the file -> its stamp.
    """
    return {path.name: _stamp(path) for path in _matching(folder, (*WEIGHTS, *TOKENIZER))}


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    # Programs can set the modification time back, but not the change time.
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _remembered_sha256(path: Path, cache: Path) -> str:
    began, stamp = time.time_ns(), _stamp(path)
    note = cache / "hashes" / digest([str(path), *stamp])
    if note.exists():
        return note.read_text()
    value = file_sha256(path)
    if _stamp(path) != stamp:
        raise SourceError(f"{path} was written while its hash was computed; start again when it is complete")
    changed = stamp[2]
    if began - changed > SETTLED_NS:
        write_text(note, value)
    return value
