"""The language model as a Lightning module whose prediction step explains samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch import LightningModule
from transformers import PreTrainedModel

from shiftlens.attribution.engine import CHUNK, log_gradient
from shiftlens.attribution.generate import greedy
from shiftlens.attribution.ledger import Row
from shiftlens.errors import ShiftLensError
from shiftlens.models.loading import LM


@dataclass(frozen=True)
class Request:
    """One sample to explain.

    Args:
        key: its key in the ledger.
        input_ids: [total] the prompt as fed, template included.
        prompt_index: [prompt] positions of the user's tokens.
        response_ids: the response to explain, or ``None`` for the model's own.
        max_new_tokens: longest response of its own; the same throughout a batch.
        stops: ids that end a response; the same throughout a batch.
    """

    key: str
    input_ids: tuple[int, ...]
    prompt_index: tuple[int, ...]
    response_ids: tuple[int, ...] | None
    max_new_tokens: int
    stops: tuple[int, ...]


class AttributionModule(LightningModule):
    """Generate (or take) a response and explain every token of it by every prompt token.

    ``Trainer.predict`` must run with ``inference_mode=False``: derivatives are taken in the step.

    Args:
        lm: the model.
        mode: attribution engine, see :data:`shiftlens.attribution.engine.MODES`.
        chunk: derivatives carried at once.
    """

    def __init__(self, lm: LM, mode: str = "auto", chunk: int = CHUNK) -> None:
        super().__init__()
        # Lightning moves what it sees to one device; a model spread over several must stay where it is.
        spread = getattr(lm.model, "hf_device_map", None) is not None
        self._inside = None if spread else lm.model
        self._outside: list[PreTrainedModel] = [lm.model] if spread else []
        self.tokenizer = lm.tokenizer
        self.mode = mode
        self.chunk = chunk

    @property
    def model(self) -> PreTrainedModel:
        """The language model."""
        return self._inside if self._inside is not None else self._outside[0]

    def transfer_batch_to_device(
        self, batch: list[Request], device: torch.device, dataloader_idx: int
    ) -> list[Request]:
        """Ids go to the device where they are used; a request has no tensors."""
        return batch

    def predict_step(self, batch: list[Request], batch_idx: int = 0) -> list[Row]:
        """The raw attributions of a batch: responses are generated together, explained one by one."""
        responses = self._responses(batch)
        return [self._explain(request, *response) for request, response in zip(batch, responses, strict=True)]

    def _responses(self, batch: list[Request]) -> list[tuple[list[int], bool]]:
        own = [request for request in batch if request.response_ids is None]
        generated = iter(
            greedy(self.model, [r.input_ids for r in own], own[0].max_new_tokens, own[0].stops) if own else []
        )
        return [
            next(generated) if request.response_ids is None else (list(request.response_ids), True)
            for request in batch
        ]

    def _explain(self, request: Request, response: list[int], finished: bool) -> Row:
        ids = [*request.input_ids, *response]
        with torch.enable_grad():
            gradient, logp = log_gradient(
                self.model, ids, request.prompt_index, len(response), self.mode, self.chunk
            )
        if not bool(torch.isfinite(gradient).all() and torch.isfinite(logp).all()):
            raise ShiftLensError(
                f"the attribution of the prompt {self.tokenizer.decode(request.input_ids)!r} is not finite in "
                f"{self.model.dtype}; use model.dtype=bfloat16 or float32"
            )
        return Row(
            key=request.key,
            input_ids=np.asarray(ids, np.int32),
            prompt_index=np.asarray(request.prompt_index, np.int32),
            gradient=gradient.to(torch.float32).numpy(),
            log_probability=logp.to(torch.float32).numpy(),
            response=self.tokenizer.decode(response, skip_special_tokens=True),
            finished=finished,
        )
