"""Collects English text for pre-training from installed Python packages or from files.

The documentation inside the packages that ShiftLens depends on is read as text: nothing is downloaded, and no code
of the packages is run. Its licences (BSD, PSF) allow this use; none of the text is part of ShiftLens.
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
"""Packages with much documentation that every installation has; ``pydoc_data`` is Python's help text."""
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
_NO_DOCUMENTATION = {"tests", "test", "testing", "externals", "_vendor", "vendor"}


@dataclass(frozen=True)
class Corpus:
    """Text for pre-training.

    Args:
        documents: One text per file, with paragraphs separated by a line break.
        sources: Name of a source -> number of characters from it.
        sha256: Hash of all documents in their order.
    """

    documents: tuple[str, ...]
    sources: Mapping[str, int]
    sha256: str

    @property
    def chars(self) -> int:
        """Number of characters in all documents."""
        return sum(map(len, self.documents))


def corpus_of(documents: Iterable[tuple[str, Sequence[str]]], max_chars: int | None = None) -> Corpus:
    r"""Collect documents without repeated paragraphs, up to a size.

    Only the first copy of a paragraph is kept, upper and lower case counting as equal: documentation describes the
    same parameter in a hundred functions, and a model would memorise a hundred copies.

    Args:
        documents: Source name and paragraphs of each document.
        max_chars: Number of characters after which no further document is added; ``None`` adds all.

    Returns:
        The text; documents that contain only repeated paragraphs are left out.

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
    """Read the documentation of installed packages: docstrings, ``.rst`` files and Python's help topics.

    The same packages in the same versions give the same text, in the same order.

    Args:
        packages: Import names of the packages.
        max_chars: Number of characters after which reading stops; ``None`` reads everything.

    Returns:
        The prose of the documentation, one document per file.

    Raises:
        ConfigError: Lists every package that is not installed.
    """
    roots = {name: _root(name) for name in packages}
    missing = [name for name, root in roots.items() if root is None]
    if missing:
        raise ConfigError(
            f"pretrain.text.packages: not installed: {', '.join(missing)}; leave them out, "
            "or set pretrain.text.files to text files of your own"
        )
    # Packages take turns, one file each, so that a text cut short still contains every package.
    titles = {name: _title(name) for name in roots}
    lists = [[(titles[name], path) for path in _documented(root)] for name, root in roots.items() if root]
    turns = max((len(files) for files in lists), default=0)
    files = [one[turn] for turn in range(turns) for one in lists if turn < len(one)]
    return corpus_of(((source, _read(path)) for source, path in files), max_chars)


def from_files(paths: Sequence[str | Path], max_chars: int | None = None) -> Corpus:
    """Read text files in UTF-8, in which a blank line separates paragraphs.

    Args:
        paths: Files, in the order to read them.
        max_chars: Number of characters after which no further file is added; ``None`` adds all.

    Returns:
        The text, one document per file.

    Raises:
        ConfigError: Lists every file that cannot be read or is not UTF-8.
    """
    problems, documents = [], []
    for path in map(Path, paths):
        try:
            text = path.expanduser().read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"is not UTF-8 at byte {error.start}"
            problems.append(f"pretrain.text.files: {path}: {reason}")
            continue
        paragraphs = [" ".join(lines.split()) for lines in text.split("\n\n")]
        documents.append((str(path), [paragraph for paragraph in paragraphs if paragraph]))
    refuse(problems)
    return corpus_of(documents, max_chars)


def _root(package: str) -> Path | None:
    """Return the folder of a package, or ``None`` if the package is not installed."""
    # `find_spec` of a top-level name locates the package without importing it.
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) if folders else None


def _title(package: str) -> str:
    """Return the name and version of a package's distribution; for the standard library, Python's version."""
    name = _DISTRIBUTIONS.get(package, package)
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (Python {platform.python_version()})"


def _documented(root: Path) -> list[Path]:
    """Return the files to read below a package's folder, sorted by path, without tests and vendored code."""
    paths = [path for suffix in _READERS for path in root.rglob(f"*{suffix}")]
    named = [(path.relative_to(root), path) for path in paths]
    return [
        path
        for name, path in sorted(named, key=lambda pair: pair[0].as_posix())
        if not _NO_DOCUMENTATION & set(name.parts)
    ]


def _read(path: Path) -> list[str]:
    """Return the paragraphs of prose in a file."""
    raw = path.read_bytes()
    texts = _READERS[path.suffix](raw)
    return [paragraph for text in texts for paragraph in prose(text)]


def _python(raw: bytes) -> list[str]:
    """Return the docstrings of a Python file; if there are none, its help topics."""
    return docstrings(raw) or _topics(raw)


def _topics(raw: bytes) -> list[str]:
    """Return the values of ``topics = {name: text}``, the form in which Python stores its help texts."""
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
    """Return a reStructuredText file as one text."""
    return [raw.decode("utf-8", errors="replace")]


_READERS: dict[str, Callable[[bytes], list[str]]] = {".py": _python, ".rst": _rst}
