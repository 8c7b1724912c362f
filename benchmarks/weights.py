"""Times the weight views against plain and library implementations of the same numbers.

``python benchmarks/weights.py [--quick]``

Every contender runs once per round, in turn, in one process; every other round runs in reverse order. Times are
medians over rounds. Ratios are medians of the ratios within each round, so that a busy machine slows both sides of
a ratio. A pause, not timed, precedes each contender: the threads of numpy, scipy and torch keep spinning for a
while after their work and would slow the next contender. Results are compared before times: if they disagree, no
ratio is printed and the exit code is 1. The exit code is also 1 if a view needs more than 2 GB in addition to a
model of LLaMA-7B's shapes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits
from weights_memory import in_fresh_process

from shiftlens.weights import layer_knowledge, lexicon, principal_components
from shiftlens.weights.head_pairs import Lexicon
from shiftlens.weights.pca import covariance

SEPARATED = 5e-4
"""Gap to both neighbours, over the largest variance, above which float32 determines a direction well."""


SMALL = [(512, 128, 100), (1536, 576, 300), (2048, 512, 300), (3072, 768, 300), (4608, 1152, 300)]
"""Rows, width and components of layers on which scikit-learn must not be faster; the second is SmolLM2's."""
SMALL_ROUNDS = 15
PAUSE = 0.1
"""Pause in seconds before each contender, so that the threads of the previous contender go to sleep."""
MOST_MEMORY = 2e9
"""Largest memory of a weight view in addition to the model, in bytes."""


@dataclass(frozen=True)
class Timing:
    """Times of all contenders in seconds, one per round, and their last results."""

    times: Mapping[str, Sequence[float]]
    results: Mapping[str, Any]

    @property
    def seconds(self) -> dict[str, float]:
        """Median time of each contender."""
        return {name: float(np.median(times)) for name, times in self.times.items()}

    def ratio(self, name: str, to: str) -> float:
        """Return the median over rounds of the time of ``name`` divided by that of ``to``."""
        return float(np.median(np.divide(self.times[name], self.times[to])))


def in_turn(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> Timing:
    """Run all contenders once per round, every other round in reverse order."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    results = {}
    for number in range(rounds):
        names = list(contenders)[:: -1 if number % 2 else 1]
        for name in names:
            time.sleep(PAUSE)
            start = time.perf_counter()
            results[name] = contenders[name]()
            times[name].append(time.perf_counter() - start)
    return Timing(times, results)


def random_matrix(rows: int, width: int) -> torch.Tensor:
    """Return a [rows, width] matrix of standard normal numbers, the same at each call."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0))


def planted_matrix(rows: int, width: int) -> torch.Tensor:
    """Return a random matrix; the standard deviation along the k-th of its random axes is ``k ** -0.5``."""
    axes = torch.linalg.qr(random_matrix(width, width))[0]
    return (random_matrix(rows, width) * torch.arange(1.0, width + 1) ** -0.5) @ axes.T


def disagreement(ours: Any, library: PCA) -> str:
    """Compare our components with the library's; the verdict starts with ``equal`` or ``not equal``."""
    values = library.explained_variance_
    error = np.abs(ours.variance.numpy() - values).max() / values[0]
    gaps = -np.diff(values) / values[0]
    lone = np.minimum(np.append(np.inf, gaps), np.append(gaps, 0.0)) > SEPARATED
    cosine = np.abs((ours.components.numpy() * library.components_).sum(axis=1))[lone]
    if error > 1e-5 or cosine.min(initial=1.0) < 0.999:
        return f"not equal: variance {error:.1e}, |cos| {cosine.min(initial=1.0):.4f}"
    return f"equal: variance {error:.0e}, least |cos| of {lone.sum()} separated {cosine.min(initial=1.0):.6f}"


def components(table: Table, name: str, rows: torch.Tensor, k: int, rounds: int, further: bool) -> bool:
    """Time the top ``k`` components of a matrix, add rows to the table, and return whether the results agree.

    With ``further``, the parts of the computation and a full SVD are timed too.
    """
    values = rows.numpy()
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: principal_components(rows, k),
        "covariance_eigh": lambda: PCA(k, svd_solver="covariance_eigh").fit(values),
    }
    if further:
        contenders |= {
            "own covariance alone": lambda: covariance(rows),
            "full product alone": lambda: rows.T @ rows,
            "full SVD": lambda: PCA(k, svd_solver="full").fit(values),
        }
    timing = in_turn(contenders, rounds)
    verdict = disagreement(timing.results["ours"], timing.results["covariance_eigh"])
    add(table, f"{name}, {len(rows)} x {rows.shape[1]}, top {k}", timing, "ours", verdict)
    return verdict.startswith("equal")


def add(table: Table, what: str, timing: Timing, ours: str, verdict: str) -> None:
    """Add one table row per contender; ratios are left out unless the verdict is ``equal``."""
    for name, seconds in timing.seconds.items():
        ratio = f"{timing.ratio(name, ours):.2f}" if verdict.startswith("equal") else ""
        table.add_row(what, name, f"{seconds:.4f}", ratio, verdict if name == ours else "")
        what = ""
    table.add_section()


def plain_pairs(
    a: np.ndarray, b: np.ndarray, words: list[str], V: np.ndarray, threshold: np.ndarray, top: int
) -> set[tuple[str, ...]]:
    """Return the word pairs of a head by the plain definition of the method.

    Args:
        a: [head, words] Query activations.
        b: [head, words] Key activations.
        words: Words of the vocabulary.
        V: [words, dim] Unit word vectors.
        threshold: [words] Cosine above which a word counts as related to another.
        top: Number of words per side and dimension.
    """
    dimensions: Counter[tuple[str, ...]] = Counter()
    for ai, bi in zip(a, b, strict=True):
        query, key = np.argsort(-np.abs(ai))[:top], np.argsort(-np.abs(bi))[:top]
        cosine = V[query] @ V[key].T
        good = (np.sign(ai[query])[:, None] * np.sign(bi[key]) > 0) & (cosine > threshold[query][:, None])
        good &= cosine > threshold[key]
        both = np.argwhere(good)
        pairs_here = {tuple(sorted((words[query[q]].lower(), words[key[k]].lower()))) for q, k in both}
        dimensions.update(pair for pair in pairs_here if len(set(pair)) == 2)
    return {pair for pair, count in dimensions.items() if count >= 2}


def pairs(table: Table, heads: int, words: int, width: int, head: int, top: int, rounds: int) -> bool:
    """Time the word pairs of a layer and return whether they equal those of the plain definition.

    Embeddings and word vectors are built from the same topics, so that several dimensions of a head give the same
    pairs, as in a trained head.
    """
    rng, topics = np.random.default_rng(0), 40
    topic = rng.standard_normal((words, topics)).astype(np.float32)
    E = topic @ rng.standard_normal((topics, width)).astype(np.float32)
    E += 3 * rng.standard_normal((words, width), dtype=np.float32)
    V = topic @ rng.standard_normal((topics, 50)) + rng.standard_normal((words, 50))
    V /= np.linalg.norm(V, axis=1, keepdims=True)
    frequent = V @ V[:3000].T
    threshold = frequent.mean(axis=1) + 1.96 * frequent.std(axis=1)
    names = [f"{'Word' if index % 9 else 'word'}{index // 2}" for index in range(words)]
    embeddings, lexical = torch.from_numpy(E), lexicon(names, V, threshold)
    query, key = random_matrix(heads * width, 2 * head).view(heads, width, 2 * head).split(head, dim=2)
    query, key = query.contiguous(), key.contiguous()

    def products() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(q.T @ embeddings.T, k.T @ embeddings.T) for q, k in zip(query, key, strict=True)]

    activations = [(a.numpy(), b.numpy()) for a, b in products()]
    contenders = {
        "ours": lambda: layer_knowledge(embeddings, query, key, lexical, top),
        "products alone": products,
        "plain, without products": lambda: [plain_pairs(a, b, names, V, threshold, top) for a, b in activations],
    }
    timing = in_turn(contenders, rounds)
    ours, plain = (as_words(timing.results["ours"], lexical), timing.results["plain, without products"])
    wrong = sum(len(one ^ other) for one, other in zip(ours, plain, strict=True))
    total = sum(map(len, plain))
    verdict = f"not equal: {wrong} of {total} pairs" if wrong or not total else f"equal: {total} pairs"
    add(table, f"pairs, {heads} heads x {head}, {words} words, width {width}, top {top}", timing, "ours", verdict)
    rest = timing.seconds["ours"] - timing.seconds["products alone"]
    if not wrong and total:
        table.add_row("", "ours, all but the products", f"{rest:.3f}", f"{rest / timing.seconds['ours']:.2f}", "")
    return not wrong and total > 0


def as_words(knowledge: list[np.ndarray], lexical: Lexicon) -> list[set]:
    """Return the word pairs of each head as sets of sorted words, from pairs of word indices."""
    return [{tuple(sorted((lexical.forms[i], lexical.forms[j]))) for i, j in pairs} for pairs in knowledge]


def memory(shape: str, threads: int) -> bool:
    """Print the peak memory of each view in a new process; return whether all are within ``MOST_MEMORY``."""
    title = f"Memory of the weight views, model of {shape} shapes in bfloat16, MB"
    table = Table("view", "model", "above it, first layer", "next layer", "most allowed", "seconds", title=title)
    peaks = []
    for view in ("concepts", "word pairs"):
        usage = in_fresh_process(view, shape, threads)
        peaks.append(max(usage["first"], usage["further"]))
        sizes = [usage["model"], usage["first"], usage["further"], MOST_MEMORY]
        table.add_row(view, *(f"{size / 1e6:,.0f}" for size in sizes), f"{usage['seconds']:.0f}")
    Console(width=150).print(table)
    return max(peaks) <= MOST_MEMORY


def run(options: argparse.Namespace) -> int:
    """Run the chosen benchmarks, print their tables, and return the exit code."""
    if options.only == "memory":
        return 0 if memory("quick" if options.quick else "7b", options.threads) else 1
    title = f"Weight views, threads: {options.threads}, medians of {options.rounds} rounds"
    table = Table("what", "contender", "seconds", "over ours", "results", title=title)
    agreed = []
    if options.only is None:
        agreed.append(memory("quick" if options.quick else "7b", options.threads))
    if options.only != "pairs":
        rows, width, k = (2400, 2048, 40) if options.quick else (11008, 4096, 300)
        for name, matrix in (("random", random_matrix), ("planted", planted_matrix)):
            agreed += [
                components(table, name, matrix(*shape), top, SMALL_ROUNDS, False)
                for *shape, top in SMALL[: 2 if options.quick else None]
            ]
            if options.only != "small":
                agreed.append(components(table, name, matrix(rows, width), k, options.rounds, name == "random"))
    if options.only in (None, "pairs"):
        shape = (2, 2000, 256, 32, 50) if options.quick else (4, 20_000, 4096, 128, 100)
        agreed.append(pairs(table, *shape, options.rounds))
    Console(width=150).print(table)
    return 0 if all(agreed) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes: do all agree?")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["small", "components", "pairs", "memory"], help="run one part")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        return run(options)


if __name__ == "__main__":
    sys.exit(main())
