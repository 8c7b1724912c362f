"""Measures the memory that one weight view needs in addition to the model, and prints it as one JSON line.

``python benchmarks/weights_memory.py VIEW SHAPE``; ``benchmarks/weights.py --only memory`` runs all views.

The model is in bfloat16 and has two layers, to show that one layer's float32 weights are freed before the next
layer's weights are converted. The weights are random: their variance is nearly the same in all directions, so the
search for components needs the largest subspace, the worst case for memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from serve import _forget_peak, _memory
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM
from shiftlens.weights.by_layer import concepts_by_layer, pairs_by_layer

LAYERS = 2


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaMA-type model and of its views; ``dim`` is the dimension of the static word vectors."""

    width: int
    d_ff: int
    heads: int
    words: int
    vocabulary: int
    components: int
    dim: int


SHAPES: Mapping[str, Shape] = {
    "7b": Shape(width=4096, d_ff=11008, heads=32, words=20_000, vocabulary=128_000, components=300, dim=300),
    "quick": Shape(width=256, d_ff=512, heads=4, words=2000, vocabulary=3000, components=40, dim=50),
}


def random_model(shape: Shape) -> tuple[LM, list[str]]:
    """Return a random model in bfloat16 that is wholly in memory, and words that are one token each."""
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.d_ff,
        num_attention_heads=shape.heads,
        num_hidden_layers=LAYERS,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    # All matrices reuse one block of random numbers, each from another offset: drawing new numbers for every
    # matrix would take longer than the views.
    block = torch.randn(16_000_057, generator=generator).to(torch.bfloat16)
    for parameter in model.parameters():
        flat = parameter.view(-1)
        start = int(torch.randint(len(block), (), generator=generator))
        for at in range(0, len(flat), len(block)):
            piece = flat[at : at + len(block)]
            piece.copy_(block.roll(-start)[: len(piece)])
    words = [f"word{index}" for index in range(shape.words)]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    return LM(model, tokenizer, "", Identity("random", "0", "", "bfloat16")), words


def views(shape: Shape, lm: LM, words: list[str]) -> dict[str, Callable[[], Iterator[Any]]]:
    """Return, by name, functions that run each view over all layers; their inputs are made here, in advance."""
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((40, shape.dim), dtype=np.float32)
    unit = topics[rng.integers(40, size=shape.words)] + rng.standard_normal((shape.words, shape.dim), np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    threshold = np.full(shape.words, 0.3)
    layers, heads = range(LAYERS), range(shape.heads)
    return {
        "concepts": lambda: concepts_by_layer(lm, layers, words, shape.components, 50),
        "word pairs": lambda: pairs_by_layer(lm, layers, heads, words, unit, threshold, 100),
    }


def measure(view: str, shape: Shape) -> dict[str, float]:
    """Run one view and measure its memory above that of the libraries, the model and the word vectors.

    Returns:
        ``model``: size of the weights. ``first``: peak memory up to the first layer's result, which includes the
        embeddings of the words. ``further``: peak memory during the next layer. ``seconds``: time. Sizes are in
        bytes.
    """
    lm, words = random_model(shape)
    run = views(shape, lm, words)[view]
    _forget_peak()
    before, start = _memory("VmRSS"), time.perf_counter()
    results = run()
    next(results)
    first = _memory("VmHWM") - before
    _forget_peak()
    next(results)
    further = _memory("VmHWM") - before
    seconds = time.perf_counter() - start
    model = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    return {"model": model, "first": first, "further": further, "seconds": seconds}


def in_fresh_process(view: str, shape: str, threads: int) -> dict[str, float]:
    """Return the result of :func:`measure` from a new process, whose peak memory nothing else has raised."""
    command = [sys.executable, __file__, view, shape, "--threads", str(threads)]
    line = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    return dict(json.loads(line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("view")
    parser.add_argument("shape", choices=list(SHAPES))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps(measure(options.view, SHAPES[options.shape])))


if __name__ == "__main__":
    main()
