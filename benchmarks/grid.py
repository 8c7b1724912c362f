"""Times the grid of all (L, b, p) in one pass against scoring each setting anew: ``python benchmarks/grid.py``.

Importance is random, in the shape of the paper's data. Both ways run in one process, one after the other. Results
are compared before times: if they differ, no ratio is printed and the exit code is 1. Scoring anew is timed on
every k-th setting (``--every``; 1 means all settings) and scaled to the whole grid.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from jaxtyping import Float

from shiftlens.analyses.density.grid import all_settings, grid
from shiftlens.analyses.density.questions import followed_question, tuning_question
from shiftlens.scores import density, instruction_score, score
from shiftlens.scores.scored import Scored
from shiftlens.scores.settings import Settings

TOLERANCE = 1e-10


def records(prompts: int, shape: tuple[int, int]) -> list[Scored]:
    """Make records of two roles with random, heavy-tailed importance.

    Args:
        prompts: Number of prompts.
        shape: Mean numbers of prompt and response tokens; lengths vary by up to a third.

    Returns:
        Two records per prompt, base and tuned.
    """
    rng = np.random.default_rng(0)
    samples = []
    for i in range(prompts):
        n = int(rng.uniform(2 / 3, 4 / 3) * shape[0])
        mask = np.arange(n) < n // 2
        for role in ("base", "tuned"):
            m = int(rng.uniform(2 / 3, 4 / 3) * shape[1])
            importance = rng.standard_t(2, (n, m)).astype(np.float32)
            samples.append(Scored("random", str(i), role, mask, ~mask, i % 5 > 0, importance=importance))
    return samples


def anew(samples: list[Scored], setting: Settings) -> Float[np.ndarray, " records"]:
    """Return the instruction scores of one setting, with S and density computed anew for every record."""
    return np.array(
        [
            instruction_score(density(score(r.importance, setting.L, setting.b), setting.p), r.instruction)
            for r in samples
            if r.importance is not None
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=632)
    parser.add_argument("--shape", type=int, nargs=2, default=(30, 250), metavar=("PROMPT", "RESPONSE"))
    parser.add_argument("--every", type=int, default=16)
    options = parser.parse_args()
    samples = records(options.prompts, tuple(options.shape))
    settings = all_settings()

    start = time.perf_counter()
    result_grid = grid(samples)
    once = time.perf_counter() - start

    chosen = range(0, len(settings), options.every)
    start = time.perf_counter()
    plain = [anew(samples, settings[i]) for i in chosen]
    each = (time.perf_counter() - start) / len(chosen)

    difference = float(np.abs(np.stack(plain) - result_grid.scores[list(chosen)]).max())
    n, m = options.shape
    print(f"{options.prompts} prompts x 2 roles, about {n} x {m} tokens; {len(settings)} settings")
    print(f"largest difference on {len(chosen)} settings: {difference:.1e}")
    if difference > TOLERANCE:
        raise SystemExit(f"results differ by more than {TOLERANCE:g}: times mean nothing")
    total = each * len(settings)
    print(f"one pass: {once:.2f} s; scored anew: {total:.1f} s ({each:.3f} s a setting); ratio {total / once:.0f}")

    for name, question in (("T1", followed_question(samples)), ("T2", tuning_question(samples))):
        start = time.perf_counter()
        result = question.permute(result_grid.scores)
        seconds = time.perf_counter() - start
        print(f"max-T of {name}, {len(settings)} settings x {result.permutations} relabellings: {seconds:.2f} s")


if __name__ == "__main__":
    main()
