"""Silences messages of other libraries that would hide the output of a run."""

from __future__ import annotations

import logging
import warnings

from transformers.utils import logging as transformers_logging

_NOISE = (
    ".*does not have many workers.*",
    ".*sync_dist=True.*",
    ".*is_gradient_checkpointing.*",
    ".*treespec, LeafSpec.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*`isinstance\\(treespec, LeafSpec\\)`.*",
    ".*lr_scheduler.step.*before.*optimizer.step.*",
    ".*dirpath has changed.*",
)
"""Regular expressions of warnings to ignore."""


def quiet_libraries() -> None:
    """Silence start-up lines, progress bars and some warnings of Lightning and transformers; errors stay visible.

    Example:
        >>> quiet_libraries()
        >>> logging.getLogger("lightning.pytorch").isEnabledFor(logging.INFO)
        False
    """
    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for noise in _NOISE:
        warnings.filterwarnings("ignore", message=noise)
