"""Template tokens as sources: scores of the prompt stay, regions of their own are added."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.tiny import tiny, tokenizer

from shiftlens.attribution import AttributionModule, Request
from shiftlens.attribution.methods import Ablation, Gradient
from shiftlens.attribution.request import Units
from shiftlens.models import LM, Identity
from shiftlens.prompts.encode import Encoded
from shiftlens.prompts.schema import Prompt
from shiftlens.scores.samples import measure, samples_table
from shiftlens.scores.settings import Settings

pytestmark = pytest.mark.quick

LM_ = LM(tiny("llama"), tokenizer(), "none", Identity("m", "f", "", "float64"))
MASK = np.array([True, False, False])
ENCODED = Encoded(
    Prompt("p", "a b c", ((0, 1),)), (5, 6, 17, 38, 9, 60), (2, 3, 4), ("a", " b", " c"), MASK, ~MASK
)
OUTSIDE = tuple(place for place in range(len(ENCODED.input_ids)) if place not in ENCODED.prompt_index)
ASKED = Request("", ENCODED.input_ids, ENCODED.prompt_index, (7, 8, 9), 8, (2,))


def row_of(**changed):
    return AttributionModule(LM_).predict_step([replace(ASKED, **changed)])[0]


@pytest.mark.parametrize("method", [Gradient(), Ablation()])
@pytest.mark.parametrize("response", [False, True])
@pytest.mark.parametrize("units", [None, Units("word", (0, 0, 1))])
def test_scores_of_the_prompt_do_not_move(method, response, units):
    alone, both = (
        row_of(method=method, include_response=response, units=units, outside=outside) for outside in ((), OUTSIDE)
    )
    np.testing.assert_allclose(both.by_token(), alone.by_token(), rtol=1e-5, atol=1e-9)
    a, b = (measure("base", ENCODED, row, Settings(10, 0, 4)) for row in (alone, both))
    assert np.array_equal(a.S, b.S) and np.array_equal(a.density, b.density)
    assert len(a.outside) == 0 and len(b.outside) == len(OUTSIDE)
    whole = row_of(method=method, prompt_index=OUTSIDE)
    np.testing.assert_allclose(both.beside(), whole.relative(), rtol=1e-5, atol=1e-9)


def test_densities_of_the_outside_by_their_definition():
    row = row_of(outside=OUTSIDE)
    m = measure("base", ENCODED, row, Settings(10, 2, 4))
    inside = row.by_token()
    largest = np.maximum(inside, 0).max(0)
    levels = np.ceil(10 * np.maximum(row.beside(), 0) / np.where(largest > 0, largest, np.inf))
    levels[levels <= 2] = 0
    norms = (levels.astype(float) ** 4).sum(1) ** 0.25
    raw = np.divide(levels.sum(1), norms, out=np.zeros(len(levels)), where=norms > 0)
    S = m.S.astype(float)
    top = max(s.sum() / (s**4).sum() ** 0.25 for s in S if s.any())
    np.testing.assert_allclose(m.outside, raw / top, rtol=1e-6)
    (sample,) = samples_table([m]).to_dict("records")
    assert OUTSIDE[0] == 0 and sample["density_first"] == m.outside[0]
    assert sample["density_template"] == pytest.approx(m.outside[1:].mean())
    assert np.isnan(samples_table([measure("base", ENCODED, row_of(), Settings())])["density_first"][0])
