"""One response with its scores: what the grid, the tests and the controls are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8

from shiftlens.errors import ConfigError
from shiftlens.scores import score
from shiftlens.scores.samples import Measured


@dataclass(frozen=True)
class Scored:
    """One response of one model, by its raw importance or by a sparse score that was kept of it.

    Args:
        dataset: where the prompt is from.
        id: the prompt, unique in its data set.
        role: ``base`` or ``tuned``.
        instruction: [prompt] which tokens belong to the instruction.
        context: [prompt] which tokens belong to the context.
        followed: whether the response follows the instruction, ``None`` if not known.
        importance: [sources, response] raw importance I or the gradient of log p, the prompt's tokens first.
        S: [sources, response] in its place: the sparse score with b = 0.
        L: levels of ``S``.

    Raises:
        ValueError: not one of ``importance`` and ``S`` with ``L``, or shapes that do not fit; every fault at once.

    Example:
        >>> both = np.array([True, False])
        >>> kept = Scored("d", "1", "base", both, ~both, None, S=np.array([[10, 7], [3, 0]], np.uint8), L=10)
        >>> kept.levels(5).tolist()
        [[5, 4], [2, 0]]
    """

    dataset: str
    id: str
    role: str
    instruction: Bool[np.ndarray, " _"]
    context: Bool[np.ndarray, " _"]
    followed: bool | None
    importance: Float[np.ndarray, "_ _"] | None = None
    S: UInt8[np.ndarray, "_ _"] | None = None
    L: int | None = None

    def __post_init__(self) -> None:
        problems = []
        if (self.importance is None) == (self.S is None):
            problems.append("give either importance or S")
        elif (self.S is None) != (self.L is None):
            problems.append("give L with S, and only then")
        elif self.S is not None and self.L is not None and self.S.max(initial=0) > self.L:
            problems.append(f"S has level {self.S.max()}, above L = {self.L}")
        if len(self.instruction) != len(self.context):
            problems.append(f"masks of {len(self.instruction)} and {len(self.context)} prompt tokens")
        matrix = self.importance if self.S is None else self.S
        if matrix is not None and len(matrix) < len(self.instruction):
            problems.append(f"scores of {len(matrix)} tokens for a prompt of {len(self.instruction)}")
        if problems:
            raise ValueError(f"{self.dataset}/{self.id} ({self.role}): " + "; ".join(problems))

    @property
    def n_response(self) -> int:
        """Number of response tokens."""
        matrix = self.importance if self.S is None else self.S
        assert matrix is not None
        return matrix.shape[1]

    def levels(self, L: int) -> UInt8[np.ndarray, "_ _"]:
        """[sources, response] sparse score with L levels and b = 0.

        Raises:
            ConfigError: only a score was kept, and its levels cannot be merged into L.
        """
        if self.importance is not None:
            return score(self.importance, L)
        assert self.S is not None and self.L is not None
        if self.L % L:
            raise ConfigError(
                f"{self.dataset}/{self.id} ({self.role}): scores were kept with L = {self.L} levels, from which "
                f"L = {L} cannot be made. Choose an L that divides {self.L}, or give raw importance."
            )
        # ceil(ceil(10 x) / 2) = ceil(5 x): merging levels loses nothing.
        return merge(self.S, self.L // L)


def merge(S: UInt8[np.ndarray, "_ _"], factor: int) -> UInt8[np.ndarray, "_ _"]:
    """Every ``factor`` neighbouring levels become one: ``ceil(S / factor)``.

    Example:
        >>> merge(np.array([[0, 1, 2, 3, 4]], np.uint8), 2).tolist()
        [[0, 1, 1, 2, 2]]
    """
    return (-(-S.astype(np.int16) // factor)).astype(np.uint8)


def scored(measured: Sequence[Measured], samples: pd.DataFrame) -> list[Scored]:
    """Records of samples that a run has measured.

    Args:
        measured: samples with their ledger rows.
        samples: see :func:`shiftlens.scores.samples.samples_table`; tells which responses follow.
    """
    followed = samples.set_index(["role", "dataset", "id"])["followed"]
    records = []
    for m in measured:
        prompt, verdict = m.encoded.prompt, followed[m.role, m.encoded.prompt.dataset, m.encoded.prompt.id]
        records.append(
            Scored(
                prompt.dataset, prompt.id, m.role, m.encoded.instruction, m.encoded.context,
                None if pd.isna(verdict) else bool(verdict), importance=m.importance,
            )
        )  # fmt: skip
    return records


def samples_frame(records: Sequence[Scored], scores: Float[np.ndarray, " records"]) -> pd.DataFrame:
    """The columns that T1 and T2 need, one row per record.

    Args:
        records: the responses.
        scores: [records] instruction scores.
    """
    columns: Mapping[str, object] = {
        "role": [r.role for r in records],
        "id": [r.id for r in records],
        "dataset": [r.dataset for r in records],
        "instruction_score": scores,
        "followed": pd.array([pd.NA if r.followed is None else r.followed for r in records], dtype="boolean"),
        "n_response": [r.n_response for r in records],
    }
    return pd.DataFrame(columns)


def starts(lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Offset of each of several runs of the given lengths laid end to end.

    Example:
        >>> starts(np.array([2, 3, 1])).tolist()
        [0, 2, 5]
    """
    return np.cumsum(lengths) - lengths
