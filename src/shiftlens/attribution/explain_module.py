"""The language model as a Lightning module whose prediction step explains samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from shiftlens.attribution.engine import Engine
from shiftlens.attribution.generate import greedy
from shiftlens.attribution.request import Request, batches, by_cost
from shiftlens.attribution.row import Row
from shiftlens.errors import ShiftLensError
from shiftlens.models.loading import LM

BATCH_TOKENS = 4096
"""Prompt and response tokens generated together."""


class AttributionModule(LightningModule):
    """Generate (or take) a response and explain every token of it by every prompt token.

    ``Trainer.predict`` must run with ``inference_mode=False``: derivatives are taken in the step. A step is one
    sample, so that progress and the ledger move sample by sample; responses of a whole batch are generated when
    the first of them is needed. Under several ranks each takes its share of the samples.

    Args:
        lm: the model.
        requests: the samples to explain.
        engine: how they are explained.
        batch_tokens: tokens generated together, see :func:`batches`.
        done: keys that need no work; they keep their place when samples are dealt out, so that ranks whose looks
            at the ledger differ still share the rest without gaps.
    """

    def __init__(
        self,
        lm: LM,
        requests: Sequence[Request] = (),
        engine: Engine | None = None,
        batch_tokens: int = BATCH_TOKENS,
        done: Collection[str] = (),
    ) -> None:
        super().__init__()
        # Lightning moves what it sees to one device; a model spread over several must stay where it is.
        spread = getattr(lm.model, "hf_device_map", None) is not None
        self._inside = None if spread else lm.model
        self._outside: list[PreTrainedModel] = [lm.model] if spread else []
        self.lm = lm
        self.engine = engine or Engine()
        self.batch_tokens = batch_tokens
        self._requests = by_cost(requests)
        self._done = frozenset(done)
        self._batch_of: dict[str, list[Request]] = {}
        self._responses: dict[str, tuple[list[int], bool]] = {}

    @property
    def model(self) -> PreTrainedModel:
        """The language model."""
        return self._inside if self._inside is not None else self._outside[0]

    def predict_dataloader(self) -> DataLoader[Request]:
        """This rank's samples, one a step; a rank without any takes one empty step, as others wait for it."""
        share = self._requests[self.trainer.global_rank :: self.trainer.world_size]
        mine = [request for request in share if request.key not in self._done]
        self._batch_of = {r.key: batch for batch in batches(mine, self.batch_tokens) for r in batch}
        # A list is a map-style data set.
        return DataLoader(mine or [()], batch_size=1, collate_fn=lambda some: [r for r in some if r])  # type: ignore[arg-type, list-item]

    def transfer_batch_to_device(
        self, batch: list[Request], device: torch.device, dataloader_idx: int
    ) -> list[Request]:
        """Ids go to the device where they are used; a request has no tensors."""
        return batch

    def predict_step(self, batch: list[Request], batch_idx: int = 0) -> list[Row]:
        """The raw attributions of some samples."""
        return [self._explain(request, *self._response(request)) for request in batch]

    def _response(self, request: Request) -> tuple[list[int], bool]:
        if request.response_ids is not None:
            return list(request.response_ids), True
        if request.key not in self._responses:
            batch = self._batch_of.get(request.key, [request])
            longest = max(r.max_new_tokens for r in batch)
            texts = greedy(self.model, [r.input_ids for r in batch], longest, request.stops)
            self._responses.update(zip([r.key for r in batch], texts, strict=True))
        response, finished = self._responses.pop(request.key)
        short = len(response) < request.max_new_tokens
        return response[: request.max_new_tokens], finished and short

    def _explain(self, request: Request, response: list[int], finished: bool) -> Row:
        ids = [*request.input_ids, *response]
        # The last token enters no prediction; its row is zero.
        own = range(len(request.input_ids), len(ids) - 1) if request.include_response else ()
        others = [*request.outside, *own]
        method, engine, units = request.method, request.target_of(self.engine), request.units
        if units is not None and not (method.jointly and units.used(len(response))):
            units = None
        sets: Sequence[Sequence[int]] | None = request.sets
        unit = "token" if sets is None else "set"
        if units is not None:
            sets = [*_members(units.of, request.prompt_index), *([place] for place in others)]
            unit = units.name
        if sets is not None:
            explained, sources = method.explain_units(self.model, ids, sets, len(response), engine), len(sets)
        else:
            places = [*request.prompt_index, *others]
            explained, sources = method.explain(self.model, ids, places, len(response), engine), len(places)
        values, reading = explained.values.to(torch.float32), explained.reading
        if values.shape != (sources, len(response)) or len(reading.rank) != len(response):
            raise ShiftLensError(
                f"the method {method.name} gave {tuple(values.shape)} numbers for {sources} sources "
                f"and {len(response)} response tokens"
            )
        if not bool(torch.isfinite(values).all() and torch.isfinite(reading.log_probability).all()):
            raise ShiftLensError(
                f"the attribution of the prompt {self.lm.tokenizer.decode(request.input_ids)!r} is not finite in "
                f"{self.model.dtype}; use model.dtype=bfloat16 or float32"
            )
        if request.include_response and response:
            values = torch.cat([values, values.new_zeros(1, len(response))])
        return Row(
            key=request.key,
            input_ids=np.asarray(ids, np.int32),
            prompt_index=np.asarray(request.prompt_index, np.int32),
            values=values.numpy(),
            log_probability=reading.log_probability.to(torch.float32).numpy(),
            rank=reading.rank.to(torch.int32).numpy(),
            response=self.lm.tokenizer.decode(response, skip_special_tokens=True),
            finished=finished,
            engine=explained.mode,
            method=method.name,
            unit=unit,
            form=method.form,
            target=engine.target,
            outside=np.asarray(request.outside, np.int32) if request.outside else None,
            unit_of=None if units is None else np.asarray(units.of, np.int32),
            residual=None if explained.residual is None else explained.residual.to(torch.float32).numpy(),
            choice=reading.choice.to(torch.int32).numpy() if len(reading.choice) == len(response) else None,
        )


def _members(of: Sequence[int], places: Sequence[int]) -> list[list[int]]:
    """List the positions of each unit's tokens."""
    members: list[list[int]] = [[] for _ in range(max(of, default=-1) + 1)]
    for unit, place in zip(of, places, strict=True):
        members[unit].append(place)
    return members
