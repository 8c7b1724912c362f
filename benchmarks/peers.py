"""Runs Inseq or Captum as a contender; ``contender.py`` starts this script in the peers' own environment.

Both run with their defaults and with the fused attention of transformers.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from serve import Answer, Contender, Task, serve
from transformers import AutoModelForCausalLM, AutoTokenizer


def inseq_answer(task: Task, model: Any) -> Answer:
    """Return Inseq's input x gradient of p(y_m).

    Raises:
        ValueError: Inseq, which takes text, encodes it to other token ids than those of the task.
    """
    output = model.attribute(
        task.prompt, task.prompt + task.completion, attributed_fn="probability", show_progress=False
    )
    values = output.aggregate("sum", normalize=False).sequence_attributions[0].target_attributions
    fed = [token.id for token in output.sequence_attributions[0].target]
    first = len(task.ids) - task.response
    _same(fed, task.ids)
    return Answer(values[:first].float(), "probability", "naive")


def captum_answer(task: Task, attribution: Any, tokenizer: Any) -> Answer:
    """Return Captum's gradient x activation of log p(y_m), its only target, at the embedding layer.

    Raises:
        ValueError: Captum, which takes text, encodes it to other token ids than those of the task.
    """
    from captum.attr import TextTokenInput

    first = len(task.ids) - task.response
    text = TextTokenInput(task.prompt, tokenizer)
    _same(text.inp_tensor[0].tolist(), task.ids[:first])
    output = attribution.attribute(text, torch.tensor(task.ids[first:]))
    return Answer(output.token_attr.T, "log_probability", "naive")


def inseq_removal(task: Task, model: Any) -> Answer:
    """Return Inseq's occlusion, ``|p(y_m) - p(y_m without x_n)|``, with its default token in the place of x_n."""
    output = model.attribute(
        task.prompt, task.prompt + task.completion, attributed_fn="probability", show_progress=False
    )
    sequence = output.sequence_attributions[0]
    first = len(task.ids) - task.response
    _same([token.id for token in sequence.target], task.ids)
    return Answer(sequence.target_attributions[:first].float(), "absolute_probability", "naive")


def captum_removal(task: Task, attribution: Any, tokenizer: Any, token_by_token: bool) -> Answer:
    """Return Captum's feature ablation of log p(y_m), with its default token in the place of x_n.

    Token by token without Captum's cache, which gives other numbers with this release of transformers.
    """
    from captum.attr import TextTokenInput

    first = len(task.ids) - task.response
    text = TextTokenInput(task.prompt, tokenizer)
    _same(text.inp_tensor[0].tolist(), task.ids[:first])
    output = attribution.attribute(
        text, torch.tensor(task.ids[first:]), forward_in_tokens=token_by_token, use_cached_outputs=False
    )
    return Answer(output.token_attr.T, "log_probability", "naive")


def _same(fed: list[int], wanted: list[int]) -> None:
    """Raise ``ValueError`` if the token ids that a peer read are not those of the task."""
    if fed != wanted:
        raise ValueError(f"the text became other ids: {fed}, not {wanted}")


def make(options: argparse.Namespace) -> tuple[Contender, str]:
    """Load the peer named by ``options.contender``; return it and its name with version."""
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, local_files_only=True)
    model.eval()  # parameters keep `requires_grad`, as neither tool freezes them
    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    tool, _, method = options.contender.partition("_")
    title = f"{tool.capitalize()} {version(tool)} {method}".strip()
    if method and tool == "inseq":
        import inseq

        return partial(inseq_removal, model=inseq.load_model(model, "occlusion", tokenizer=tokenizer)), title
    if method:
        from captum.attr import FeatureAblation, LLMAttribution

        ablation = LLMAttribution(FeatureAblation(model), tokenizer)
        by_token = method == "ablation"
        return partial(captum_removal, attribution=ablation, tokenizer=tokenizer, token_by_token=by_token), title
    if options.contender == "inseq":
        import inseq

        wrapped = inseq.load_model(model, "input_x_gradient", tokenizer=tokenizer)
        return partial(inseq_answer, model=wrapped), title
    from captum.attr import LayerGradientXActivation, LLMGradientAttribution

    layered = LayerGradientXActivation(model, model.get_input_embeddings())
    attribution = LLMGradientAttribution(layered, tokenizer)
    return partial(captum_answer, attribution=attribution, tokenizer=tokenizer), title


if __name__ == "__main__":
    serve(make)
