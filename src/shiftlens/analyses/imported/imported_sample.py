"""Defines an imported response with its scores, and the source with all responses of one model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Shaped

from shiftlens.analyses.imported.sentencepiece_text import pieces_text
from shiftlens.errors import Problem, PromptError
from shiftlens.scores.following import followed_or_rated
from shiftlens.scores.scored import Scored


@dataclass(frozen=True)
class Sample:
    """One response of one model with its scores.

    Args:
        row: Number of the row in the file, from 1.
        scored: Record from which the tests are computed.
        prompt: The prompt as text; joined from its tokens if the file does not contain the text.
        told: Whether the file contains the prompt's text.
        prompt_pieces: [prompt] tokens, SentencePiece pieces or plain text.
        response_pieces: [response] tokens, SentencePiece pieces or plain text.
        rating: Human rating of this response; ``None`` if not known.
    """

    row: int
    scored: Scored
    prompt: str
    told: bool
    prompt_pieces: tuple[str, ...]
    response_pieces: tuple[str, ...]
    rating: int | None

    @property
    def key(self) -> tuple[str, str]:
        """Data set and id, which identify the prompt."""
        return self.scored.dataset, self.scored.id


@dataclass(frozen=True)
class Source:
    """All responses of one model.

    Args:
        role: Role of the model, ``base`` or ``tuned``.
        path: File or folder with the responses.
        fingerprint: SHA-256 of the content of the file or folder.
        samples: The responses, in the order of the file.
        skipped: Faults of the responses that are left out.
    """

    role: str
    path: Path
    fingerprint: str
    samples: tuple[Sample, ...]
    skipped: tuple[Problem, ...]

    @property
    def kinds(self) -> list[str]:
        """Kinds of scores in the source: ``importance``, or ``S with L = ...``.

        Example:
            >>> Source("base", Path("a.parquet"), "f00", (), ()).kinds
            []
        """
        return sorted({"importance" if s.scored.L is None else f"S with L = {s.scored.L}" for s in self.samples})


def make_sample(
    row: int,
    role: str,
    key: tuple[str, str],
    pieces: tuple[Sequence[str], Sequence[str]],
    masks: tuple[Bool[np.ndarray, " prompt"], Bool[np.ndarray, " prompt"]],
    matrix: Shaped[np.ndarray, "prompt response"],
    L: int | None,
    prompt: str | None = None,
    rating: int | None = None,
) -> Sample:
    """Make a sample from tokens, masks and scores whose lengths agree, after checking their values.

    Args:
        row: Number of the row in the file, from 1.
        role: Role of the model, ``base`` or ``tuned``.
        key: Data set and id.
        pieces: [prompt] and [response] tokens.
        masks: [prompt] instruction mask and context mask.
        matrix: [prompt, response] raw importance, or the sparse score S with b = 0.
        L: Number of levels of S; ``None`` for raw importance.
        prompt: The prompt as text, if known.
        rating: Human rating, if known.

    Raises:
        ValueError: The values have faults; the message names every one.

    Example:
        >>> both = np.array([True, False])
        >>> pieces = ["▁Say", "▁hi"], ["▁hi"]
        >>> one = make_sample(1, "base", ("d", "1"), pieces, (both, ~both), np.array([[0.5], [0.0]]), None)
        >>> one.prompt, one.scored.levels(10).tolist()
        ('Say hi', [[10], [0]])
    """
    problems = []
    if any("\ud800" <= letter <= "\udfff" for tokens in pieces for token in tokens for letter in token):
        problems.append("a token has half of a surrogate pair, which is no text")
    if not masks[0].any():
        problems.append("no token is in the instruction")
    if not np.isfinite(matrix).all():
        problems.append("scores that are not finite")
    elif L is not None and matrix.size and not 0 <= matrix.min() <= matrix.max() <= L:
        problems.append(f"levels from {matrix.min()} to {matrix.max()}; expected 0 to {L} (data.levels)")
    if problems:
        raise ValueError("; ".join(problems))
    values = matrix.astype(np.uint8) if L is not None else matrix.astype(np.float64)
    scored = Scored(
        *key, role, *masks, _followed(rating),
        importance=values if L is None else None, S=None if L is None else values, L=L,
    )  # fmt: skip
    prompt_pieces, response_pieces = (tuple(tokens) for tokens in pieces)
    text = pieces_text(prompt_pieces) if prompt is None else prompt
    return Sample(row, scored, text, prompt is not None, prompt_pieces, response_pieces, rating)


@functools.cache
def _followed(rating: int | None) -> bool | None:
    verdict = followed_or_rated(pd.Series([pd.NA], dtype="boolean"), pd.Series([rating], dtype="Int64")).iloc[0]
    return None if pd.isna(verdict) else bool(verdict)


def gathered(
    role: str, path: Path, fingerprint: str, samples: Sequence[Sample], problems: Sequence[Problem], skip: bool
) -> Source:
    """Gather the samples of one model into a source, or raise an error for their faults.

    Args:
        role: Role of the model, ``base`` or ``tuned``.
        path: File or folder with the responses.
        fingerprint: SHA-256 of the content of the file or folder.
        samples: Samples without a fault.
        problems: All faults.
        skip: Whether responses with faults are left out instead of raising an error.

    Raises:
        PromptError: There are faults and ``skip`` is false, or no sample is left.
    """
    if problems and not (skip and samples):
        raise PromptError(str(path), problems)
    if not samples:
        raise PromptError(str(path), [Problem(1, "", "expected at least one response, there is none")])
    return Source(role, path, fingerprint, tuple(samples), tuple(problems))
