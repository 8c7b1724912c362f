"""Importance for the difference of two models: against autograd and whole forwards of the difference itself."""

from __future__ import annotations

import base64
import copy

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.in_process import RECORDS, analyze
from helpers.tiny import VOCAB, tiny
from scipy import stats

import shiftlens as sl
from shiftlens.analyses.density.maps import ShiftMap
from shiftlens.analyses.shift_explained.compute import difference, region_rows
from shiftlens.analyses.shift_explained.findings import Wording, region_findings
from shiftlens.attribution import Engine, Row
from shiftlens.attribution.methods import Ablation, Gradient, Method
from shiftlens.attribution.modes.plain_attention import plain_attention
from shiftlens.prompts.encode import Encoded
from shiftlens.prompts.schema import Prompt
from shiftlens.report.page import render_report
from shiftlens.results.method_agreement import Named

PROMPT, RESPONSE = [1, 2, 3, 5, 6], 4


def log_p(model, ids, embeddings):
    """[response] log p of the response from one whole forward."""
    logits = model(inputs_embeds=embeddings[None, :-1], use_cache=False).logits[0, -RESPONSE:]
    return logits.log_softmax(-1).gather(1, ids[-RESPONSE:, None])[:, 0]


def row(model, ids, method):
    found = method.explain(model, ids.tolist(), PROMPT, RESPONSE, Engine("reverse"))
    numbers = found.reading.log_probability.numpy()
    return Row("k", ids.numpy(), np.array(PROMPT), found.values.numpy(), numbers, found.reading.rank.numpy(), "", True,
               "reverse", form=method.form)  # fmt: skip


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def two(request):
    models = [tiny(request.param, seed=seed).requires_grad_(False) for seed in (0, 1)]
    return models, torch.from_numpy(np.random.default_rng(1).integers(3, VOCAB, 12))


def test_the_difference_of_gradients_is_the_gradient_of_the_difference(two):
    (base, tuned), ids = two
    found = difference(*(row(model, ids, Gradient()) for model in (base, tuned)))
    with plain_attention(base), plain_attention(tuned), torch.enable_grad():
        size = torch.ones(len(ids), 1, dtype=torch.float64, requires_grad=True)  # of both models' embeddings
        scaled = [model.get_input_embeddings()(ids) * size for model in (base, tuned)]
        shift = log_p(tuned, ids, scaled[1]) - log_p(base, ids, scaled[0])
        columns = [torch.autograd.grad(one, size, retain_graph=True)[0][PROMPT, 0] for one in shift]
    np.testing.assert_allclose(found, torch.stack(columns, 1).numpy(), rtol=1e-9, atol=1e-9)


def test_the_difference_of_removals_is_the_removal_from_the_difference(two):
    (base, tuned), ids = two
    found = difference(*(row(model, ids, Ablation()) for model in (base, tuned)))
    tables = [model.get_input_embeddings()(ids).detach() for model in (base, tuned)]

    def shift(keep):
        return log_p(tuned, ids, tables[1] * keep) - log_p(base, ids, tables[0] * keep)

    whole = shift(torch.ones(len(ids), 1, dtype=torch.float64))
    for place, values in zip(PROMPT, found, strict=True):
        keep = torch.ones(len(ids), 1, dtype=torch.float64)
        keep[place] = 0.0
        np.testing.assert_allclose(values, (whole - shift(keep)).numpy(), rtol=1e-9, atol=1e-9)


def encoded(name, regions):
    masks = [np.array([region == name for region in regions]) for name in ("instruction", "context")]
    prompt = Prompt(name, "x" * len(regions), ((0, 1),), dataset="d")
    return Encoded(prompt, (), (), ("x",) * len(regions), *masks)


def test_a_twin_that_reads_the_instruction_s_tokens_differently_shifts_there():
    """The twin has other embeddings of two ids, which are the instruction; all else is the base model's."""
    base = tiny("llama").requires_grad_(False)
    tuned, rows = copy.deepcopy(base), []
    rng = np.random.default_rng(2)
    with torch.no_grad():
        tuned.get_input_embeddings().weight[[40, 41]] = torch.randn(2, 32, dtype=torch.float64)
    regions = ["instruction", "instruction", "other", "other", "other"]
    for name in range(30):
        ids = rng.integers(3, 40, 12)
        ids[[1, 2]] = 40, 41
        values = difference(*(row(model, torch.from_numpy(ids), Ablation()) for model in (base, tuned)))
        rows += [
            {"method": "ablation", **r} for r in region_rows(encoded(str(name), regions), values, np.abs(values))
        ]
    named = Named("ablation", "exact removal", True)
    found = {
        f.name: f for f in region_findings(pd.DataFrame(rows), [named], Wording("shift", "the shift", "both"))
    }
    for name in ("shift/instruction_vs_chance", "shift/instruction_vs_other"):
        assert found[name].effect > 0 and found[name].stands and found[name].verdict == "supported"
    assert found["shift/other_vs_chance"].effect == pytest.approx(-found["shift/instruction_vs_chance"].effect)


def table(methods=("ablation",), effect=0.2, n=9):
    rng, rows = np.random.default_rng(0), []
    for method in methods:
        for name in range(n):
            instruction = 0.5 + effect + 0.1 * rng.standard_normal()
            for region, chance, share in (
                ("instruction", 0.5, instruction), ("context", 0.3, 0.3 - effect / 2), ("other", 0.2, 0.2 - effect / 2)
            ):  # fmt: skip
                noise = 0.01 * rng.standard_normal()
                rows.append({"method": method, "id": str(name), "dataset": "d", "region": region,
                             "token_share": chance, "share": share + noise, "net": 1.0})  # fmt: skip
    return pd.DataFrame(rows)


def test_findings_are_t_tests_within_prompts_with_holm_over_them():
    frame = table()
    found = {
        f.name: f for f in region_findings(frame, [Named("ablation", "removal", True)], Wording("v", "it", "both"))
    }
    wide = {name: frame.pivot(index="id", columns="region", values=name) for name in ("share", "token_share")}
    beyond = wide["share"] - wide["token_share"]
    tests = {f"v/{region}_vs_chance": beyond[region] for region in ("instruction", "context", "other")}
    tests |= {f"v/instruction_vs_{other}": beyond["instruction"] - beyond[other] for other in ("context", "other")}
    assert set(found) == set(tests)
    plain = {name: float(stats.ttest_1samp(values, 0).pvalue) for name, values in tests.items()}
    running = 0.0
    for rank, name in enumerate(sorted(plain, key=plain.__getitem__)):
        assert found[name].effect == pytest.approx(tests[name].mean())
        assert found[name].p == pytest.approx(plain[name])
        running = max(running, min(1.0, (5 - rank) * plain[name]))
        assert found[name].p_corrected == pytest.approx(running)
        assert found[name].corrected_over == ("regions",)


@pytest.mark.parametrize(("by_removal", "verdict"), [(0.2, "supported"), (-0.2, "gradient only")])
def test_exact_removal_confirms_or_not(by_removal, verdict):
    frame = pd.concat([table(("gradient",)), table(("ablation",), by_removal)])
    methods = [Named("gradient", "gradient x embedding", False), Named("ablation", "removal", True)]
    found = {f.name: f for f in region_findings(frame, methods, Wording("v", "it", "both"))}
    assert found["v/instruction_vs_chance"].verdict == verdict
    # On the other side removal rejects the same null hypothesis, but for the opposite effect.
    assert found["v/instruction_vs_chance"].holds_under == ("gradient", "ablation")[: 1 + (by_removal > 0)]
    assert found["v/instruction_vs_chance/ablation"].verdict == "supported"
    alone = region_findings(table(("gradient",)), methods[:1], Wording("v", "it", "both"))
    assert alone[0].verdict == "gradient only"


def test_a_prompt_of_one_region_says_nothing_and_rows_add_up():
    values = np.array([[1.0, -2.0], [3.0, 0.0], [0.0, 0.0]])
    rows = region_rows(encoded("a", ["instruction", "other", "instruction"]), values, np.abs(values))
    assert [(r["region"], r["tokens"], r["net"], r["share"]) for r in rows] == [
        ("instruction", 2, -1.0, 0.5), ("other", 1, 3.0, 0.5)
    ]  # fmt: skip
    single = region_rows(encoded("a", ["instruction"] * 3), values, np.abs(values))
    frame = pd.DataFrame([{"method": "m", **r} for r in single])
    (finding,) = region_findings(frame, [Named("m", "m", True)], Wording("v", "it", "both"))
    assert not finding.testable and finding.n == 0


def test_the_bytes_of_a_map_keep_sign_and_size():
    shift = np.array([[1.0, -0.25], [0.0, 1e-3]])
    drawn = ShiftMap("p", ["a", "b"], ["c", "d"], ["instruction", "other"], shift, "nats", "m")
    packed = drawn.packed()
    q = np.frombuffer(base64.b64decode(packed["score"]), np.int8).reshape(2, 2) / 127
    np.testing.assert_allclose(np.sign(q) * q**2 * packed["most"], shift, atol=0.01)
    assert packed["net"] == [0.75, 0.001] and drawn.most_moving(1) == [("a", 0.75)]


@pytest.fixture(scope="module")
def ran(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shift_explained")
    return analyze(folder, pair, "data.responses=tuned")[0]


def test_a_run_s_tables_are_sums_of_both_models_importance(ran, pair):
    base, tuned = (sl.load(str(folder)) for folder in pair)
    for method in ("gradient", "ablation"):
        for record in RECORDS:
            response = sl.attribute(tuned, record["text"], max_new_tokens=6)
            start = len(response.input_ids) - len(response.response_tokens)
            values = []
            for lm in (base, tuned):
                engine, of = Engine(target="log_probability"), Gradient() if method == "gradient" else Ablation()
                ids, places = response.input_ids.tolist(), response.prompt_index.tolist()
                values.append(of.explain(lm.model, ids, places, len(ids) - start, engine).values.double())
            want = (values[1] - values[0]).sum(1).numpy()
            tokens = ran.tables["shift_tokens"]
            found = tokens[(tokens["method"] == method) & (tokens["id"] == record["id"])]
            np.testing.assert_allclose(found["net"], want, rtol=1e-3, atol=1e-4)
            regions = ran.tables["shift"]
            regions = regions[(regions["method"] == method) & (regions["id"] == record["id"])]
            assert regions["net"].sum() == pytest.approx(found["net"].sum())
            assert regions["share"].sum() == pytest.approx(1.0)
    names = {finding.name for finding in ran.findings if finding.view == "shift"}
    assert {"shift/instruction_vs_chance", "shift/instruction_vs_context/ablation"} <= names


def test_the_page_has_the_maps_and_the_section(ran):
    page = render_report(ran)
    assert page.count('class="map shift"') == 2 * len(RECORDS)
    assert "Which parts of the prompt carry the shift" in page and 'id="figure-shift_by_region"' in page
    figures = [name for section in ran.sections for name in section.gallery()]
    assert "maps/0/shift" in figures and "maps/0/ablation/shift" in figures


def test_there_is_no_shift_of_a_models_own_response(pair, tmp_path):
    analysis, _ = analyze(tmp_path, pair)
    assert "shift" not in analysis.tables and 'class="map shift"' not in render_report(analysis)


def test_numbers_that_do_not_add_up_in_log_p_are_told_apart():
    class Shares(Method):
        name = words = "shares of p"

        def explain(self, *_):
            raise NotImplementedError

    assert not Shares().logarithmic("probability") and Shares().logarithmic("log_probability")
    assert Gradient().logarithmic("probability") and Ablation().logarithmic("probability")
