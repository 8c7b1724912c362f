"""Keep other libraries from talking over what a run tells its user."""

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


def quiet_libraries() -> None:
    """Silence start-up lines, hints about workers and bars of half a second; errors and our own lines stay.

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
