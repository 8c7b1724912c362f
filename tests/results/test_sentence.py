"""Sentence, verdict and sweep cell obey one rule: a difference is claimed where the finding stands, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.sweep_tables import write_job

from shiftlens.results.finding import Control, Finding, Group
from shiftlens.results.sentence import sentence
from shiftlens.results.verdict import judge
from shiftlens.sweep.cells import cells_table

RIVAL = Control("random mask", "?", 1.0, 0.01, 0.2, survives=True, specific=True)


def finding(
    p: float | None, corrected: float | None = None, effect: float | None = 0.4, expected: str | None = "tuned"
) -> Finding:
    difference = effect or 0.0
    groups = {"base": Group(1.0, 0.5, 40), "tuned": Group(1.0 + difference, 0.5, 40)}
    ci = (difference - 0.3, difference + 0.3)
    return Finding("x/y", "x", "d", "both", "Is it?", "it is not", "t", 40, groups, effect, "Hedges g", ci, p,
                   p_corrected=corrected, measure="score", expected=expected)  # fmt: skip


def claims(found: Finding) -> bool:
    """Whether the sentence says that a group is higher."""
    return "is higher for" in sentence(found)


def test_a_p_value_that_the_correction_takes_away_claims_nothing() -> None:
    found = judge(finding(0.02, 0.31), [RIVAL])
    assert found.verdict == "not supported"
    assert sentence(found) == (
        "On d, the score shows no clear difference between tuned and base: 1.40 vs 1.00, "
        "Hedges g 0.40 [0.10, 0.70], p = 0.02, corrected p = 0.31, n = 40."
    )


@pytest.mark.parametrize(("p", "corrected"), [(0.05, None), (0.01, 0.05)])
@pytest.mark.parametrize("expected", ["tuned", None])
def test_a_p_value_of_exactly_the_level_stands_everywhere(p, corrected, expected, tmp_path) -> None:
    found = judge(finding(p, corrected, expected=expected), [RIVAL])
    assert found.stands and found.verdict == "supported"
    assert "the score is higher for tuned than for base" in sentence(found)
    cells = cells_table(tmp_path, [write_job(tmp_path, 0, [found.to_dict()], L=10, b=0, p=4)])
    assert cells["stands"].tolist() == [True]
    above = float(np.nextafter(0.05, 1))
    missed = judge(replace(found, p=above, p_corrected=None if corrected is None else above), [RIVAL])
    assert not missed.stands and missed.verdict == "not supported" and not claims(missed)
    cells = cells_table(tmp_path / "above", [write_job(tmp_path / "above", 0, [missed.to_dict()], L=10, b=0, p=4)])
    assert cells["stands"].tolist() == [False]


def drawn(rng: np.random.Generator) -> Finding:
    """A finding whose numbers lie on both sides of every bound, and on the bounds themselves."""
    some_p = [None, 0.0, 0.01, 0.05, 0.051, 0.3, 1.0, *rng.uniform(0, 0.1, 5).tolist()]
    p = some_p[rng.integers(len(some_p))]
    corrected = None if p is None or rng.random() < 0.4 else max(p, float(some_p[1 + rng.integers(11)]))
    effect = None if p is None else float(rng.choice([-0.4, 0.0, 0.4, rng.normal()]))
    expected = [None, "tuned"][rng.integers(2)]
    rivals = [(), (RIVAL,), (replace(RIVAL, survives=False),), (replace(RIVAL, survives=None),)][rng.integers(4)]
    return judge(finding(p, corrected, effect, expected), rivals)


def test_sentence_verdict_and_sweep_cell_agree_on_random_numbers(tmp_path) -> None:
    rng = np.random.default_rng(0)
    # Most are corrected over the grid, as importance scores are; Holm's method takes long for hundreds of questions.
    grids = [() if i % 30 == 0 else ("L", "b", "p") for i in range(600)]
    made = [replace(drawn(rng), name=f"x/{i}", corrected_over=grid) for i, grid in enumerate(grids)]
    job = write_job(tmp_path, 0, [found.to_dict() for found in made], L=10, b=0, p=4)
    cells = cells_table(tmp_path, [job]).set_index("name")
    for found in made:
        decisive = found.p if found.p_corrected is None else found.p_corrected
        one_sided = found.expected is not None
        stands = decisive is not None and decisive <= 0.05 and (not one_sided or (found.effect or 0) > 0)
        assert found.stands == stands, found
        assert claims(found) == stands, sentence(found)
        assert (found.verdict in ("supported", "supported but not specific")) == stands, found
        assert (found.verdict == "not testable") == (found.p is None)
        assert bool(cells.loc[found.name, "stands"]) == stands, found
        # A difference on the side that was not asked about is told as that, and only where the test missed it.
        if "points the other way" in sentence(found):
            assert one_sided and found.p > 0.5 and found.verdict == "not supported"
    standing = [found.stands for found in made]
    assert 100 < sum(standing) < 500
