"""Tells the processes of a parallel run apart."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only


def is_main_rank() -> bool:
    """Tell whether this process is the first one, which alone prints and writes the outputs of a run.

    Example:
        >>> is_main_rank()
        True
    """
    return getattr(rank_zero_only, "rank", 0) == 0
