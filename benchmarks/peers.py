"""Inseq and Captum as contenders; run by ``contender.py`` in their own environment.

Both are used as they come, with the fused attention of the library.
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
    """Inseq's input x gradient of p(y_m); the text is what it takes, so the ids it made of it are checked."""
    found = model.attribute(
        task.prompt, task.prompt + task.completion, attributed_fn="probability", show_progress=False
    )
    values = found.aggregate("sum", normalize=False).sequence_attributions[0].target_attributions
    fed = [token.id for token in found.sequence_attributions[0].target]
    first = len(task.ids) - task.response
    _same(fed, task.ids)
    return Answer(values[:first].float(), "probability", "naive")


def captum_answer(task: Task, attribution: Any, tokenizer: Any) -> Answer:
    """Captum's gradient x activation of the embedding layer, of log p(y_m), the only target it has."""
    from captum.attr import TextTokenInput

    first = len(task.ids) - task.response
    text = TextTokenInput(task.prompt, tokenizer)
    _same(text.inp_tensor[0].tolist(), task.ids[:first])
    found = attribution.attribute(text, torch.tensor(task.ids[first:]))
    return Answer(found.token_attr.T, "log_probability", "naive")


def _same(fed: list[int], wanted: list[int]) -> None:
    if fed != wanted:
        raise ValueError(f"the text became other ids: {fed}, not {wanted}")


def make(options: argparse.Namespace) -> tuple[Contender, str]:
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, local_files_only=True)
    model.eval()  # as they take it: neither tool freezes parameters
    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    title = f"{options.contender.capitalize()} {version(options.contender)}"
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
