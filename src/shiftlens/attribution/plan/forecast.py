"""Predicts the work of explaining some samples, from the shape of the model and the lengths of the texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from shiftlens.attribution.llama.layer import written_out
from shiftlens.attribution.llama.packing import COUNT
from shiftlens.attribution.methods import Gradient, Method
from shiftlens.attribution.plan.cost import Costs, best_cut
from shiftlens.attribution.plan.memory import kept, need
from shiftlens.attribution.request import Request
from shiftlens.support.libraries.transformers_parts import body_of


@dataclass(frozen=True)
class Forecast:
    """Work of explaining some samples by one method.

    Args:
        samples: Number of samples.
        prompt_tokens: Prompt tokens that are attributed to, all samples together.
        response_tokens: Response tokens, all samples together.
        rows: Token rows in each layer, without the ordinary pass that reads each text.
        operations: Floating point operations: two for each parameter of the layers and token row, the ordinary
            pass included, and those of the output layer.
        memory: Bytes of the weights and of one derivative of the text that needs most.
        seconds: Time on this machine; ``None`` where costs were not measured.
        relative: Operations as a multiple of those of the gradient for the same texts.
    """

    samples: int
    prompt_tokens: int
    response_tokens: int
    rows: int
    operations: int
    memory: int
    seconds: float | None
    relative: float


def forecast(requests: Sequence[Request], model: PreTrainedModel, costs: Costs) -> Forecast:
    """Predict the work of some requests of one method; own responses count as long as they may become.

    Time is the measured one of the gradient at its best cut, times the operations as a multiple of the gradient's.
    Generating responses is not included.

    Args:
        requests: Requests of one method, at least one.
        model: Causal language model; its weights may be on the device ``meta``, without values.
        costs: Cost of a token row for this model on this machine.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8,
        ...                                      num_hidden_layers=1, num_attention_heads=2))
        >>> request = Request("", (1, 2, 3), (0, 1, 2), None, 4, ())
        >>> work = forecast([request], model, Costs(1.0, 1.0))
        >>> work.prompt_tokens, work.response_tokens, work.rows, work.seconds is None
        (3, 4, 12, True)
    """
    method, gradient = requests[0].method, Gradient()
    texts = [_text(request) for request in requests]
    seconds = sum(
        best_cut(costs, sorted(place for unit in units for place in unit), total, response)[1]
        for units, total, response in texts
        if units and response
    )
    operations = sum(_operations(method, model, *text) for text in texts)
    relative = operations / max(sum(_operations(gradient, model, *text) for text in texts), 1)
    return Forecast(
        samples=len(requests),
        prompt_tokens=sum(
            len({place for unit in units for place in unit if place < total - response})
            for units, total, response in texts
        ),
        response_tokens=sum(response for _, _, response in texts),
        rows=sum(method.token_rows(*text) for text in texts),
        operations=operations,
        memory=_weights(model) + max(_derivatives(model, *text) for text in texts),
        seconds=seconds * relative if costs.measured_at else None,
        relative=relative,
    )


def _text(request: Request) -> tuple[list[list[int]], int, int]:
    """Return the units that a request attributes to, the number of ids, and the number of response tokens."""
    response = request.max_new_tokens if request.response_ids is None else len(request.response_ids)
    total = len(request.input_ids) + response
    own = range(len(request.input_ids), total - 1) if request.include_response else ()
    others = [[place] for place in (*request.outside, *own)]
    if request.sets is not None:
        return [list(places) for places in request.sets], total, response
    if (units := request.units) is not None and request.method.jointly and units.used(response):
        members: list[list[int]] = [[] for _ in range(max(units.of, default=-1) + 1)]
        for unit, place in zip(units.of, request.prompt_index, strict=True):
            members[unit].append(place)
    else:
        members = [[place] for place in request.prompt_index]
    return [*members, *others], total, response


def _operations(
    method: Method, model: PreTrainedModel, units: Sequence[Sequence[int]], total: int, response: int
) -> int:
    head = model.get_output_embeddings().weight.numel()
    rows, output_rows = total, response  # without units the text is only read
    if units:
        rows += method.token_rows(units, total, response)
        output_rows = method.output_rows(len(units), response)
    return 2 * (_parameters(model) * rows + head * output_rows)


def _parameters(model: PreTrainedModel) -> int:
    """Count the parameters that a token passes through in the layers; of experts, those that are chosen."""
    config, embeddings = model.config.get_text_config(), model.get_input_embeddings().weight
    count = 0.0
    for weight in body_of(model).parameters():
        if weight is not embeddings:
            experts = len(weight) if weight.ndim == 3 else 1
            chosen = getattr(config, "num_experts_per_tok", None) or experts
            count += weight.numel() * min(chosen, experts) / experts
    return int(count)


def _weights(model: PreTrainedModel) -> int:
    return sum(weight.numel() * weight.itemsize for weight in model.parameters())


def _derivatives(model: PreTrainedModel, units: Sequence[Sequence[int]], total: int, response: int) -> int:
    """Bytes of mixed mode with a chunk of one, at the cut that needs least."""
    config, item, by_hand = model.config.get_text_config(), model.dtype.itemsize, written_out(model, total)
    some = need(config, item, "mixed", total, response, by_hand)
    sources = sorted(place for unit in units for place in unit)
    at_cuts = kept(config, item, sources, total, by_hand, COUNT if by_hand else 1) if sources else np.zeros(1, int)
    return some.fixed + some.each + int(at_cuts.min())
