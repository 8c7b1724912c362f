"""A comparison of realistic shape, made up, and the analysis that comes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from shiftlens.analyses.density.across_methods import ByMethod
from shiftlens.analyses.density.compute import Examination
from shiftlens.analyses.density.grid import Grid
from shiftlens.analyses.density.maps import REGIONS, SaliencyMap
from shiftlens.analyses.density.section import density_sections
from shiftlens.models.roles import ROLES
from shiftlens.results.analysis import Analysis
from shiftlens.results.finding import Finding, Group
from shiftlens.results.method_agreement import GRADIENT
from shiftlens.results.section import Section
from shiftlens.run.head import page_head
from shiftlens.scores.settings import Settings

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    '<img src=x onerror="window.hacked=1">',
    "]]><!--<script>",
    "\u2028\u2029",
    "naïve 日本 \U0001f600",
    "<b>bold</b>",
    "a & b",
)


@dataclass(frozen=True)
class MadeUpRun:
    """What a run of models would have found."""

    findings: Sequence[Finding]
    samples: pd.DataFrame
    tokens: pd.DataFrame
    profile: pd.DataFrame
    maps: Sequence[SaliencyMap]
    provenance: Mapping[str, Any]
    further: Sequence[Section] = field(default_factory=tuple)

    @property
    def analysis(self) -> Analysis:
        """The sections that report, loggers and terminal get."""
        examination = Examination(list(self.findings), pd.DataFrame(), Grid((), (), np.zeros((0, 0))))
        explained = ByMethod(GRADIENT, (), self.samples, self.tokens, self.profile, lambda chosen: self.maps)
        sections = density_sections({GRADIENT: examination}, [explained], (), Settings(), picture_b=0)
        return Analysis([*sections, *self.further], self.provenance, **page_head(self.provenance["models"]))


def made_up_run(prompts: int = 24, n: int = 40, m: int = 25, tokens: list[str] | None = None) -> MadeUpRun:
    """A run of realistic shape: the tuned model is heavier on the instruction, both ends are heavy."""
    rng = np.random.default_rng(0)
    words = tokens or [
        "Write",
        " a",
        " short",
        " poem",
        " about",
        " the",
        " sea",
        ".",
        " Use",
        " only",
        " capitals",
    ]
    samples, rows, maps = [], [], []
    for i in range(prompts):
        x = [words[k % len(words)] for k in range(n)]
        y = [words[(k * 3 + i) % len(words)] for k in range(m)]
        regions = ["instruction" if k < n // 3 else "context" if k < 2 * n // 3 else "other" for k in range(n)]
        for role in ROLES:
            boost = np.array([1.3 if role == "tuned" and r == "instruction" else 1.0 for r in regions])
            u_shape = 0.4 + 2.4 * (np.arange(n) / n - 0.5) ** 2
            density = np.clip(rng.gamma(2.0, 0.3, n) * boost * u_shape, 0, None)
            density /= density.max()
            score = np.floor(11 * rng.random((n, m)) ** 4 * (0.5 + density[:, None]) / 1.5).astype(np.uint8)
            value = float(density[: n // 3].sum() / math.log2(2 + n // 3))
            means = {r: float(density[[q == r for q in regions]].mean()) for r in REGIONS[:3]}
            followed = bool(rng.random() < (0.7 if role == "tuned" else 0.3))
            samples.append(
                {"role": role, "id": f"p{i}", "dataset": "verifiable", "instruction_score": value, "followed": followed,
                 "rating": None, "n_prompt": n, "n_instruction": n // 3, "n_context": n // 3, "n_response": m,
                 **{f"density_{r}": v for r, v in means.items()}, "finished": True, "prompt": "".join(x),
                 "response": "".join(y)}
            )  # fmt: skip
            for k in range(n):
                rows.append({"role": role, "id": f"p{i}", "position": k, "token": x[k], "region": regions[k], "density": density[k]})  # fmt: skip
            if i < 3:
                maps.append(SaliencyMap(f"p{i}", role, x, y, regions, score, density, value, "".join(y), followed if i else None))  # fmt: skip
    frame, token_frame = pd.DataFrame(samples), pd.DataFrame(rows)
    frame["followed"] = frame["followed"].astype("boolean")
    frame["rating"] = frame["rating"].astype("Int64")
    bins = token_frame.assign(bin=token_frame["position"] * 10 // n, dataset="verifiable")
    profile = bins.groupby(["role", "dataset", "bin"])["density"].agg(["mean", "std", "count"]).reset_index()
    groups = {"base": Group(1.0043, 0.4965, 252), "tuned": Group(1.1939, 0.5358, 252)}
    shift = Finding(
        "density/base_vs_tuned", "density", "verifiable", "both", "Does tuning raise the instruction score?",
        "the mean difference over prompts is 0", "paired t-test, two-sided", 252, groups, 0.29, "Hedges g", (0.1, 0.4),
        3.2e-6, 4.7, {"Welch": 2.28e-5}, "", measure="instruction score", expected="tuned",
    )  # fmt: skip
    none = replace(
        shift, name="density/followed_vs_unfollowed", role="tuned", expected="followed", groups={"followed": Group(1.3, float("nan"), 1)}, n=1,
        question="Do followed responses lean more on the instruction?", null="followed and unfollowed have the same mean",
        effect=None, ci=None, p=None, statistic=float("nan"), p_others={}, why_not="1 sample was not followed, 2 are needed",
    )  # fmt: skip
    model = {"fingerprint": "0f3a", "dtype": "float32", "template": "chatml"}
    provenance = {
        "created": "2025-01-01T00:00:00Z", "shiftlens": "0.1.0", "git": "abc", "python": "3.11", "torch": "2", "transformers": "5",
        "models": {"base": {"name": "base-1b", "source": "org/base-1b", **model}, "tuned": {"name": "tuned-1b", "source": "org/tuned-1b", **model}},
        "data": {"name": "verifiable", "n": prompts, "skipped": 0}, "settings": {"L": 10, "b": 7, "p": 4},
    }  # fmt: skip
    return MadeUpRun([shift, none], frame, token_frame, profile.rename(columns={"count": "n"}), maps, provenance)
