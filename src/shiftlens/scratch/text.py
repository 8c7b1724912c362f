"""The text a model is pre-trained on: English prose that is on every machine that has ShiftLens.

Nothing is fetched and nothing is run: the documentation inside the installed Python packages that ShiftLens
depends on is read as text. Its licences (BSD, PSF) allow that; none of it is part of ShiftLens.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shiftlens.errors import ConfigError
from shiftlens.scratch.prose import docstrings, prose
from shiftlens.support.setting_rules import refuse

PACKAGES = ("pydoc_data", "numpy", "scipy", "sklearn", "pandas", "statsmodels", "networkx")
"""Packages with much documentation that every installation has; ``pydoc_data`` is Python's own help."""
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_NO_DOCUMENTATION = {"tests", "test", "testing", "externals", "_vendor", "vendor"}


@dataclass(frozen=True)
class Corpus:
    """Text to pre-train on.

    Args:
        documents: one text per file read or topic, paragraphs separated by a line break.
        sources: name of a source -> characters it gave.
        sha256: hash over all documents in their order.
    """

    documents: tuple[str, ...]
    sources: Mapping[str, int]
    sha256: str

    @property
    def chars(self) -> int:
        """Characters in all documents."""
        return sum(map(len, self.documents))


def corpus_of(documents: Iterable[tuple[str, Sequence[str]]], max_chars: int | None = None) -> Corpus:
    r"""Documents without repeated paragraphs, up to a size.

    Documentation repeats itself (the same parameter in a hundred functions); a text with a hundred copies
    would be learnt by heart rather than read.

    Args:
        documents: source name and paragraphs of each document.
        max_chars: where to stop, in characters; ``None``: never.

    Example:
        >>> corpus = corpus_of([("a", ["One.", "Two."]), ("b", ["two."])])
        >>> corpus.documents, corpus.sources
        (('One.\nTwo.',), {'a': 9})
    """
    seen: set[str] = set()
    kept: list[str] = []
    sources: dict[str, int] = {}
    total = 0
    for source, paragraphs in documents:
        fresh = []
        for paragraph in paragraphs:
            if paragraph.lower() not in seen:
                seen.add(paragraph.lower())
                fresh.append(paragraph)
        if not fresh:
            continue
        kept.append("\n".join(fresh))
        sources[source] = sources.get(source, 0) + len(kept[-1])
        total += len(kept[-1])
        if max_chars is not None and total >= max_chars:
            break
    digest = hashlib.sha256("\0".join(kept).encode()).hexdigest()
    return Corpus(tuple(kept), sources, digest)


def installed(packages: Sequence[str] = PACKAGES, max_chars: int | None = None) -> Corpus:
    """The prose in the documentation of installed packages: docstrings, ``.rst`` files, Python's help topics.

    The same packages in the same versions give the same text, in the same order.

    Args:
        packages: names as imported.
        max_chars: where to stop, in characters; ``None``: never.

    Raises:
        ConfigError: names every package that is not installed.
    """
    roots = {name: _root(name) for name in packages}
    missing = [name for name, root in roots.items() if root is None]
    if missing:
        raise ConfigError(
            f"pretrain.text.packages: not installed: {', '.join(missing)}; leave them out, "
            "or set pretrain.text.files to text files of your own"
        )
    # File by file in turn, so that a smaller text is still of every package.
    titles = {name: _title(name) for name in roots}
    lists = [[(titles[name], path) for path in _documented(root)] for name, root in roots.items() if root]
    turns = max((len(files) for files in lists), default=0)
    files = [one[turn] for turn in range(turns) for one in lists if turn < len(one)]
    return corpus_of(((source, _read(path)) for source, path in files), max_chars)


def from_files(paths: Sequence[str | Path], max_chars: int | None = None) -> Corpus:
    """One's own text files, UTF-8; a blank line separates paragraphs.

    Args:
        paths: the files, in the order to read them.
        max_chars: where to stop, in characters; ``None``: never.

    Raises:
        ConfigError: lists every file that is missing or not UTF-8.
    """
    problems, documents = [], []
    for path in map(Path, paths):
        try:
            text = path.expanduser().read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"is not UTF-8 at byte {error.start}"
            problems.append(f"pretrain.text.files: {path}: {reason}")
            continue
        parts = [" ".join(part.split()) for part in text.split("\n\n")]
        documents.append((str(path), [part for part in parts if part]))
    refuse(problems)
    return corpus_of(documents, max_chars)


def _root(package: str) -> Path | None:
    # find_spec of a top-level name finds the package without importing it.
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) if folders else None


def _title(package: str) -> str:
    name = _DISTRIBUTIONS.get(package, package)
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (Python {platform.python_version()})"


def _documented(root: Path) -> list[Path]:
    found = [path for suffix in _READERS for path in root.rglob(f"*{suffix}")]
    inside = [(path.relative_to(root), path) for path in found]
    return [
        path
        for name, path in sorted(inside, key=lambda pair: pair[0].as_posix())
        if not _NO_DOCUMENTATION & set(name.parts)
    ]


def _read(path: Path) -> list[str]:
    raw = path.read_bytes()
    texts = _READERS[path.suffix](raw)
    return [paragraph for text in texts for paragraph in prose(text)]


def _python(raw: bytes) -> list[str]:
    return docstrings(raw) or _topics(raw)


def _topics(raw: bytes) -> list[str]:
    """The values of ``topics = {name: text}``, which is how Python keeps its help texts."""
    try:
        body = ast.parse(raw).body
    except (SyntaxError, ValueError):
        return []
    for node in body:
        if isinstance(node, ast.Assign) and "topics" in map(ast.unparse, node.targets):
            values = node.value.values if isinstance(node.value, ast.Dict) else []
            return [
                value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)
            ]
    return []


def _rst(raw: bytes) -> list[str]:
    return [raw.decode("utf-8", errors="replace")]


_READERS: dict[str, Callable[[bytes], list[str]]] = {".py": _python, ".rst": _rst}
