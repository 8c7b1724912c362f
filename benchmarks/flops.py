"""How many floating-point operations an attribution needs, and how many this machine can do."""

from __future__ import annotations

import statistics
import time

import torch
from transformers import PreTrainedConfig

WAYS = ("forward", "reverse", "naive")


def needed(config: PreTrainedConfig, way: str, prompt: int, response: int) -> float:
    """Floating-point operations of computing the N x M matrix in a certain way, with nothing done twice.

    Counted are matrix products of a gated, LLaMA-like model, a multiplication and an addition each; norms,
    activations and softmax are left out. With W weights in the products of all layers, V those of the output
    layer, D = layers x heads x head size, T = N + M, a product over R token rows costs 2 W R, and one over P
    pairs (query, key that it may see) costs 2 D P for each of the matrix products inside attention:

    - an ordinary pass over t tokens: 2 W t + 2 * 2 D t (t + 1) / 2  (Q K^T and P V);
    - the output layer forward and back at M places: 2 * 2 V M;
    - ``forward``: one ordinary pass over T - 1; a tangent per prompt token n, from n to T - 1, R rows in all:
      2 W R, and per row of a tangent at place t: dQ K^T and X V over the t + 1 keys before it, Q dK^T and P dV
      over the t - n + 1 keys that move;
    - ``reverse``: one ordinary pass over T - 1; a cotangent per response token, from the place that predicts it
      back to 0: 2 W R, and 4 products over the pairs of that prefix (dO V^T, P^T dO, dS K, dS^T Q);
    - ``naive``: per response token an ordinary pass over its prefix and the same way back.

    Args:
        config: the model's configuration.
        way: one of :data:`WAYS`.
        prompt: N.
        response: M.

    Example:
        >>> from transformers import LlamaConfig
        >>> config = LlamaConfig(vocab_size=10, hidden_size=4, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=1, num_key_value_heads=1)
        >>> needed(config, "naive", 2, 1)  # W = 160, V = 40, D = 4, two tokens fed: three pairs
        1584.0
    """
    layers, width, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or width // config.num_attention_heads
    query, key = config.num_attention_heads * head, config.num_key_value_heads * head
    weights = layers * (2 * width * query + 2 * width * key + 3 * width * inner)
    attention, output = layers * query, width * config.vocab_size

    def ordinary(tokens: int) -> float:
        return 2 * weights * tokens + 2 * 2 * attention * _pairs(tokens)

    def back(tokens: int) -> float:
        return 2 * weights * tokens + 4 * 2 * attention * _pairs(tokens)

    total, ends = prompt + response - 1, range(prompt, prompt + response)
    at_output = 2 * 2 * output * response
    if way == "naive":
        return float(at_output + sum(ordinary(end) + back(end) for end in ends))
    if way == "reverse":
        return float(at_output + ordinary(total) + sum(back(end) for end in ends))
    rows = sum(total - source for source in range(prompt))
    seen = sum(2 * (_pairs(total) - _pairs(source)) + 2 * _pairs(total - source) for source in range(prompt))
    return float(at_output + ordinary(total) + 2 * weights * rows + 2 * attention * seen)


def _pairs(tokens: int) -> int:
    return tokens * (tokens + 1) // 2


def sgemm(threads: int, size: int = 2048, repeats: int = 7) -> float:
    """Floating-point operations per second of a large float32 matrix product, the median of some repeats.

    Args:
        threads: threads to use.
        size: rows and columns.
        repeats: products timed, after one that is not.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = torch.rand(size, size), torch.rand(size, size)
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / statistics.median(times[1:])
