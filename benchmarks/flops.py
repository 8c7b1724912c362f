"""Counts the floating-point operations that an attribution needs, and measures how many this machine does."""

from __future__ import annotations

import statistics
import time

import torch
from transformers import PreTrainedConfig

WAYS = ("forward", "reverse", "mixed", "naive")


def needed(config: PreTrainedConfig, way: str, prompt: int, response: int) -> float:
    """Return the floating-point operations needed to compute the N x M matrix, with nothing computed twice.

    The count includes the matrix products of a gated, LLaMA-like model, with one multiplication and one addition
    per pair of factors; norms, activations and softmax are left out. Let W be the number of weights in the
    products of all layers, V that of the output layer, D = layers x heads x head size, G = layers x key heads x
    head size, and T = N + M. Then a product over R token rows costs 2 W R, and each matrix product inside
    attention over P pairs (of a query and a key that it attends to) costs 2 D P:

    - An ordinary pass over t tokens: 2 W t + 2 * 2 D t (t + 1) / 2  (Q K^T and P V).
    - The output layer, forward and back, at M positions: 2 * 2 V M.
    - ``mixed``: one ordinary pass over T - 1 tokens and, at the cut c that needs the fewest operations:

      - one tangent per prompt token n < c, from n to c, R rows in all: 2 W R, and per row of a tangent at position
        t: dQ K^T and X V over the t + 1 keys up to t, Q dK^T and P dV over the t - n + 1 keys that change;
      - one cotangent per response token predicted at c or later, from that position q back to c: 2 W R, and 4
        products over the pairs of those queries (dO V^T, P^T dO, dS K, dS^T Q);
      - the inner products of tangents and cotangents over keys and values before c: 2 * 2 G for each of the c - n
        positions of a tangent;
      - less what the outermost layers do not need: in the last layer, queries, output projections and MLPs at
        positions that predict nothing; in the first layer, queries, keys and values at positions without a source.
    - ``forward``: the same with c = T - 1. ``reverse``: the same with c = 0.
    - ``naive``: per response token, an ordinary pass over its prefix, and its backward pass.

    Args:
        config: Configuration of the model.
        way: One of :data:`WAYS`.
        prompt: N, the number of prompt tokens.
        response: M, the number of response tokens.

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
    of_queries, of_keys, of_rest = width * query, 2 * width * key, width * query + 3 * width * inner
    weights = layers * (of_queries + of_keys + of_rest)
    attention, output = layers * query, width * config.vocab_size
    total, ends = prompt + response - 1, range(prompt, prompt + response)
    at_output = 2 * 2 * output * response

    def ordinary(tokens: int) -> float:
        return 2 * weights * tokens + 2 * 2 * attention * _pairs(tokens)

    def meeting(cut: int) -> float:
        ahead, far = range(min(cut, prompt)), [end for end in ends if end > cut]
        rows = sum(cut - source for source in ahead)
        seen = sum(2 * (_pairs(cut) - _pairs(source)) + 2 * _pairs(cut - source) for source in ahead)
        inside = 2 * 2 * layers * key * rows * len(far)
        # In the last layer, each source needs rows at all positions before the cut that predict a token.
        unneeded = (of_queries + of_rest) * (rows - len(ahead) * (response - len(far)))
        unneeded += (of_queries + of_keys) * (rows - len(ahead))
        back = sum(end - cut for end in far)
        seen += sum(4 * (_pairs(end) - _pairs(cut)) for end in far)
        unneeded += (of_queries + of_rest) * (back - len(far))
        unneeded += (of_queries + of_keys) * (back - sum(max(min(end, prompt) - cut, 0) for end in far))
        return float(2 * weights * (rows + back) + 2 * attention * seen + inside - 2 * unneeded)

    if way == "naive":
        back = (2 * weights * end + 4 * 2 * attention * _pairs(end) for end in ends)
        return float(at_output + sum(map(ordinary, ends)) + sum(back))
    cuts = {"forward": [total], "reverse": [0], "mixed": range(total + 1)}[way]
    return float(at_output + ordinary(total) + min(map(meeting, cuts)))


def _pairs(tokens: int) -> int:
    return tokens * (tokens + 1) // 2


def sgemm(threads: int, size: int = 2048, repeats: int = 7) -> float:
    """Measure the floating-point operations per second of a large float32 matrix product.

    Args:
        threads: Number of threads to use.
        size: Number of rows and of columns of both matrices.
        repeats: Number of products timed; one more, the first, is not timed.

    Returns:
        The operations per second at the median time.
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
