"""The definition of exact removal, written plainly: the truth the packed suffixes are checked against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shiftlens.attribution.modes.plain_attention import plain_attention


def removed(
    model: PreTrainedModel,
    ids: Sequence[int],
    units: Sequence[Sequence[int]],
    response: int,
    by: str,
    neutral: int | None = None,
    target: str = "log_probability",
) -> Tensor:
    """Loss of every response token without every unit, [units, response]: one forward for each of the numbers.

    y_m sees only the ids before it, so nothing here relies on causal masking, caches or batching. Plain attention
    keeps float64, which the model's own does not.
    """
    columns = []
    with torch.no_grad(), plain_attention(model):
        layer = model.get_input_embeddings()
        table = layer(torch.arange(layer.weight.shape[0]))  # [vocab, width], scaled where the layer scales
        if neutral is None:
            neutral = int((table - table.mean(0)).norm(dim=-1).argmin())
        vector = {"zero": torch.zeros_like(table[0]), "mean": table.mean(0)}.get(by)
        for at in range(len(ids) - response, len(ids)):
            logits = model(torch.tensor([ids[:at]]), use_cache=False).logits[0, -1]
            others = logits.clone()
            others[ids[at]] = -torch.inf
            foil, column = int(others.argmax()), []
            for unit in units:
                if vector is not None:
                    embeddings = table[list(ids[:at])]
                    embeddings[[place for place in unit if place < at]] = vector
                    without = model(inputs_embeds=embeddings[None], use_cache=False).logits[0, -1]
                else:
                    put = [] if by == "delete" else [neutral]
                    left = [token for i, old in enumerate(ids[:at]) for token in (put if i in unit else [old])]
                    without = model(torch.tensor([left]), use_cache=False).logits[0, -1]
                column.append(_value(logits, ids[at], foil, target) - _value(without, ids[at], foil, target))
            columns.append(torch.stack(column))
    return torch.stack(columns, dim=1)


def _value(logits: Tensor, own: int, foil: int, target: str) -> Tensor:
    return logits[own] - logits[foil] if target == "logit_difference" else logits.log_softmax(-1)[own]
