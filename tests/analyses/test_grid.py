"""The grid in one pass against scoring every setting anew, bit for bit where it can be."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from shiftlens.analyses.density.grid import all_settings, grid, token_histograms
from shiftlens.attribution.row import Row
from shiftlens.errors import ConfigError
from shiftlens.prompts.encode import Encoded
from shiftlens.prompts.schema import Prompt
from shiftlens.scores import density, instruction_score, score
from shiftlens.scores.samples import measure, samples_table
from shiftlens.scores.scored import Scored, scored
from shiftlens.scores.settings import Settings

pytestmark = pytest.mark.quick


def record(importance, n_instruction=2, prompt=None, **fields):
    n = len(importance) if prompt is None else prompt
    instruction = np.arange(n) < n_instruction
    fields = {"dataset": "d", "id": "1", "role": "tuned", "followed": None, **fields}
    return Scored(instruction=instruction, context=~instruction, importance=importance, **fields)


def ragged():
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (7, 30), (12, 3), (40, 61), (3, 0), (0, 0), (5, 8)]
    records = [record(rng.standard_t(3, shape).astype(dtype), id=f"{dtype.__name__}{i}")
               for dtype in (np.float32, np.float64) for i, shape in enumerate(shapes)]  # fmt: skip
    negative = -np.abs(rng.normal(size=(6, 9)))
    return [*records, record(negative, id="negative"), record(rng.normal(size=(6, 9)), 0, id="no instruction"),
            record(rng.normal(size=(14, 9)), 3, prompt=5, id="response tokens are sources")]  # fmt: skip


def test_every_setting_equals_scoring_it_anew():
    records = ragged()
    found = grid(records)
    assert len(found.settings) == 5 * (5 + 10 + 20)
    want = np.array(
        [
            [
                instruction_score(density(score(r.importance, s.L, s.b), s.p)[: len(r.instruction)], r.instruction)
                for r in records
            ]
            for s in found.settings
        ]
    )
    np.testing.assert_allclose(found.scores, want, rtol=1e-12, atol=1e-15)
    assert (want > 0).mean() > 0.5


def test_one_setting_from_the_formulas_in_plain_loops():
    rng = np.random.default_rng(1)
    importance, L, b, p = rng.normal(size=(4, 6)), 10, 3, 3
    a = []
    for n in range(4):
        levels = []
        for m in range(6):
            s = math.ceil(L * max(importance[n][m], 0) / max(importance[k][m] for k in range(4)))
            levels.append(s if s > b else 0)
        norm = sum(s**p for s in levels) ** (1 / p)
        a.append(sum(levels) / norm if norm else 0)
    want = (a[0] + a[1]) / max(a) / math.log2(2 + 2)
    assert grid([record(importance)], [Settings(L, b, p)]).scores[0, 0] == pytest.approx(want, rel=1e-12)


def test_large_norms_neither_overflow_nor_vanish():
    rng = np.random.default_rng(2)
    r = record(rng.exponential(size=(6, 40)) ** 3)
    settings = [Settings(250, b, p) for b in (0, 200) for p in (80, 400.5)]
    want = [instruction_score(density(score(r.importance, s.L, s.b), s.p), r.instruction) for s in settings]
    np.testing.assert_allclose(grid([r], settings).scores[:, 0], want, rtol=1e-12)


def edge_values(dtype):
    """Entries at and one step beside every k / 20 of the largest, with largest entries of every size."""
    columns = []
    for largest in np.array([1, 3, 0.1, 7e-30, 1e30, 1 / 3], dtype):
        at = (np.arange(21, dtype=dtype) / dtype(20) * largest).astype(dtype)
        near = [at, np.nextafter(at[1:], dtype(0)), np.nextafter(at[1:], largest)]
        # Below 1e-300 of the largest the quotient itself would vanish in float64, at some L and not at others.
        smallest = np.nextafter(dtype(0), dtype(1)) if dtype is np.float32 else largest * 1e-300
        columns.append(np.concatenate([*near, [largest, smallest]]))
    rng = np.random.default_rng(3)
    columns += [rng.random(len(columns[0])).astype(dtype) for _ in range(200)]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("Ls", [(5, 10, 20), (3, 9, 10, 30), (1, 2, 64)])
def test_merged_histograms_are_those_of_fresh_scores_bit_for_bit(dtype, Ls):
    importance = edge_values(dtype)
    found = token_histograms(record(importance), Ls)
    for L in Ls:
        fresh = score(importance, L)
        want = np.stack([(fresh == level).sum(axis=1) for level in range(L + 1)], axis=1)
        np.testing.assert_array_equal(found[L], want)


def test_kept_scores_give_the_levels_that_divide_theirs_and_say_which_they_cannot_give():
    importance = edge_values(np.float32)
    mask = np.zeros(len(importance), bool)
    kept = Scored("lima", "author_1", "base", mask, mask, None, S=score(importance, 10), L=10)
    for L in (1, 2, 5, 10):
        np.testing.assert_array_equal(kept.levels(L), score(importance, L))
    with pytest.raises(ConfigError, match=r"lima/author_1 \(base\).*L = 20 cannot be made.*divides 10"):
        grid([kept])
    assert grid([kept], all_settings(Ls=[5, 10])).scores.shape == (75, 1)


def test_a_faulty_record_names_every_fault():
    mask, S = np.zeros(3, bool), np.full((2, 4), 11, np.uint8)
    with pytest.raises(
        ValueError, match=r"d/1 \(base\): S has level 11, above L = 10; .*2 tokens for a prompt of 3"
    ):
        Scored("d", "1", "base", mask, mask, None, S=S, L=10)
    with pytest.raises(ValueError, match="either importance or S; masks of 3 and 2"):
        Scored("d", "1", "base", mask, mask[:2], None)
    with pytest.raises(ValueError, match="b must be from 0 to L-1 = 9, got 10"):
        grid([], [Settings(10, 10, 4)])


def test_records_of_a_run_take_the_ledger_s_gradient_and_the_table_s_verdict():
    importance = np.random.default_rng(4).normal(size=(3, 5)).astype(np.float32)
    mask = np.array([True, False, True])
    measured = []
    for role, dataset in (("base", "d"), ("tuned", "d"), ("tuned", "e")):
        prompt = Prompt(id="1", text="abc", instruction=((0, 1),), dataset=dataset)
        encoded = Encoded(prompt, (7, 8, 9), (0, 1, 2), ("a", "b", "c"), mask, ~mask)
        row = Row(
            "k", np.arange(8), np.arange(3), importance, np.zeros(5, np.float32), np.ones(5, int), "r", True, ""
        )
        measured.append(measure(role, encoded, row, Settings()))
    table = samples_table(measured).assign(followed=pd.array([None, True, False], dtype="boolean"))
    records = scored(measured[::-1], table)
    assert [(r.role, r.dataset, r.followed) for r in records] == [
        ("tuned", "e", False), ("tuned", "d", True), ("base", "d", None)]  # fmt: skip
    np.testing.assert_allclose(grid(records, [Settings()]).scores[0], table["instruction_score"][::-1])


def test_the_table_of_one_setting_is_what_the_tests_read():
    records = [record(np.eye(3), followed=True), record(np.ones((3, 7)), role="base", followed=None)]
    found = grid(records, all_settings(Ls=[5]))
    table = found.samples(Settings(5, 2, 4))
    assert table["n_response"].tolist() == [3, 7]
    assert [table["followed"][0], table["followed"].isna()[1]] == [True, True]
    assert table["instruction_score"].tolist() == pytest.approx([2 / 2, 2 / 2])
    with pytest.raises(ValueError, match="not in"):
        found.at(Settings(10, 2, 4))
