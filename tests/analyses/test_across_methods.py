"""T1 and T2 under several methods: whose effect it is, and whether removal confirms it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.planted import HEADLINE, SMALL, planted

from shiftlens.analyses.density.across_methods import examine_methods, methods_table
from shiftlens.analyses.density.compute import examine
from shiftlens.analyses.density.section import methods_html
from shiftlens.analyses.density.sensitivity_figure import sensitivity_map
from shiftlens.analyses.density.t1_t2 import T2
from shiftlens.results.method_agreement import GRADIENT, Named, agreement, removal_control
from shiftlens.results.sentence import sentence

pytestmark = pytest.mark.quick

REMOVAL, LRP = Named("ablation", "exact removal (zero embedding)", exact=True), Named("lrp", "AttnLRP")
EFFECT, NONE = planted(60, gain=0.8), planted(60, seed=9)


def answer(found, method, name=T2):
    return next(f for f in found[method].findings if f.name == name)


def look(records, **settings):
    return examine_methods(records, HEADLINE, SMALL, 499, **settings)


def test_an_effect_that_removal_shows_too_is_judged_as_ever():
    found = look({GRADIENT: EFFECT, REMOVAL: planted(60, seed=3, gain=0.8)})
    finding = answer(found, GRADIENT)
    control = finding.controls[-1]
    exact = answer(found, REMOVAL, f"{T2}/ablation")
    assert (control.name, control.survives, control.p) == ("exact removal", True, exact.p)
    assert finding.verdict.startswith("supported") and finding.holds_under == ("gradient", "ablation")
    assert sentence(finding).endswith("It holds under 2 of 2 methods.")
    assert "by gradient x embedding is higher" in sentence(finding)
    assert not any(c.removal for c in exact.controls) and exact.verdict.startswith("supported")
    assert finding.headline and not exact.headline


def test_an_effect_that_removal_does_not_show_is_the_method_s_own():
    found = look({GRADIENT: EFFECT, REMOVAL: NONE, LRP: EFFECT})
    assert answer(found, GRADIENT).verdict == "gradient only"
    assert answer(found, LRP, f"{T2}/lrp").verdict == "lrp only"
    assert answer(found, GRADIENT).holds_under == ("gradient", "lrp")
    assert sentence(answer(found, GRADIENT)).endswith("It holds under 2 of 3 methods.")
    assert answer(found, REMOVAL, f"{T2}/ablation").verdict == "not supported"
    table = methods_table(found)
    assert len(table) == 3 * len(found[GRADIENT].findings) and set(table["method"]) == {
        "gradient",
        "ablation",
        "lrp",
    }
    assert methods_html(found).count('<th scope="col">') == 2 + 3


def test_a_removal_on_the_other_side_confirms_nothing():
    up = answer(look({GRADIENT: EFFECT, REMOVAL: EFFECT}), REMOVAL, f"{T2}/ablation")
    assert removal_control(up, up).survives
    assert not removal_control(up, replace(up, effect=-up.effect)).survives
    assert removal_control(up, replace(up, p=None, why_not="few")).why_not == "few"


def test_a_two_sided_finding_holds_under_methods_on_its_own_side_alone():
    up = replace(answer(look({GRADIENT: EFFECT}), GRADIENT), expected=None, controls=())
    down = replace(up, effect=-up.effect)
    found = agreement({GRADIENT: [up], LRP: [down], REMOVAL: [down]})
    assert found[GRADIENT][0].holds_under == ("gradient",) and found[LRP][0].holds_under == ("lrp", "ablation")
    assert [found[each][0].verdict for each in (GRADIENT, LRP)] == ["gradient only", "supported but not specific"]
    assert agreement({GRADIENT: [up], REMOVAL: [up]}, specific=True)[GRADIENT][0].verdict == "supported"


def test_where_removal_was_not_computed_the_finding_says_so():
    finding = answer(look({GRADIENT: EFFECT}), GRADIENT)
    assert finding.verdict == "gradient only" and finding.controls[-1].why_not == "it was not computed"
    assert finding == replace(
        next(f for f in examine(EFFECT, HEADLINE, SMALL, 499).findings if f.name == T2),
        methods=("gradient",), holds_under=("gradient",),
    )  # fmt: skip
    assert "It holds under" not in sentence(finding)


def test_max_t_over_the_methods_counts_their_grids_too():
    records = {GRADIENT: planted(30, gain=0.3), REMOVAL: planted(30, seed=4, gain=0.3)}
    alone, both = (answer(look(records, over_methods=over), GRADIENT) for over in (False, True))
    assert alone.corrected_over == ("L", "b", "p") and both.corrected_over == ("L", "b", "p", "method")
    assert alone.p == both.p and alone.p_corrected < both.p_corrected
    # Only the headline was chosen: the others are corrected as they are without it.
    found = [answer(look(records, over_methods=over), REMOVAL, f"{T2}/ablation") for over in (False, True)]
    assert found[0].p_corrected == found[1].p_corrected
    # Re-stated: the corrected p of the same grid asked of both methods at once.
    wide = [examine(some, HEADLINE, SMALL, 499) for some in records.values()]
    scores = np.concatenate([each.grid.scores for each in wide])
    from shiftlens.analyses.density.questions import tuning_question

    result = tuning_question(records[GRADIENT]).permute(scores, 499, 0)
    assert both.p_corrected == result.p_corrected[wide[0].grid.settings.index(HEADLINE)]


def test_settings_that_cannot_be_tested_are_empty_cells_of_the_figure():
    table = look({GRADIENT: EFFECT})[GRADIENT].sensitivity
    table.loc[(table["b"] == 3) & (table["p"] == 2), "statistic"] = None
    cells = [cell for row in sensitivity_map(table, "d").data[0].z for cell in row]
    assert None in cells and all(cell is None or np.isfinite(cell) for cell in cells)
