"""Keeps the mean instruction score of the samples that a prediction run explains."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from shiftlens.attribution import Request, Row
from shiftlens.attribution.methods import Method
from shiftlens.prompts.encode import Encoded
from shiftlens.scores import InstructionScore
from shiftlens.scores.settings import Settings


class RunningScore(Callback):
    """Mean instruction score over the samples explained in a run, over all ranks.

    Samples that are in the ledger already are not explained, and so not part of the mean. Requests of another
    method, of sets of tokens, with foils of their own, or that only read a response have no score.

    Args:
        settings: L, b and p.
        method: Method of attribution that the run scores.
        encoded: The prompts of the run, with their instruction masks.

    Attributes:
        mean: The mean once the run has ended; NaN where no sample with a score was explained.
    """

    mean = math.nan

    def __init__(self, settings: Settings, method: Method, encoded: Sequence[Encoded]) -> None:
        self._method = method
        self._metric = InstructionScore(settings.L, settings.b, settings.p)
        # Prompts of equal tokens share one row of the ledger, whatever their masks.
        self._masks: defaultdict[tuple[int, ...], list[torch.Tensor]] = defaultdict(list)
        for one in encoded:
            self._masks[one.input_ids].append(torch.from_numpy(one.instruction))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Sequence[Row],
        batch: Sequence[Request],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the samples of a step."""
        for request, row in zip(batch, outputs, strict=True):
            plain = request.foils is None and request.sets is None
            if request.prompt_index and plain and request.method == self._method:
                for mask in self._masks[request.input_ids]:
                    self._metric.update(torch.from_numpy(row.by_token()), mask)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the mean; every rank takes part, whether it explained a sample or not."""
        if trainer.world_size > 1:
            self._metric.to(trainer.strategy.root_device)  # ranks exchange tensors of their own devices only
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*was called before the ``update`` method")
            self.mean = float(self._metric.compute())
