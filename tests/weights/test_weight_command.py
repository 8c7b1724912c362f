"""The weight views as the command writes them, from files of weights to tables, against the plain restatement."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from helpers.command import run
from helpers.plain_weights import (
    COMPONENTS,
    GENERAL,
    INSTRUCTION,
    ROLES,
    SHOWN,
    TOP,
    TOP_WORDS,
    VOCABULARY,
    plain_concepts,
    plain_top,
)
from helpers.weight_callbacks import concepts_view, pairs_view
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from scipy import stats
from statsmodels.stats.multitest import multipletests

from shiftlens.callbacks import Concepts, WordPairs
from shiftlens.cli.analyze_command import resolved
from shiftlens.errors import ConfigError

pytestmark = pytest.mark.command


@pytest.fixture(scope="module")
def command(pair, words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    (folder / "my.jsonl").write_text(json.dumps({"id": "one", "text": "Write it", "instruction": [[0, 8]]}))
    return folder, [
        f"model.base={pair[0]}", f"model.tuned={pair[1]}", "data=jsonl", "data.path=my.jsonl", "saliency.b=0",
        "data.max_new_tokens=4", "callbacks=weights", "logger=none", f"paths.cache={folder / 'cache'}",
        f"callbacks.concepts.components={COMPONENTS}", f"callbacks.concepts.top_words={TOP_WORDS}",
        f"callbacks.concepts.shown={SHOWN}", f"callbacks.word_pairs.top={TOP}", "annotator.alpha=0.2",
        *(f"words.{key}={value}" for key, value in words.items() if isinstance(value, str)),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tables(command):
    folder, options = command
    done = run(*options, "hydra.run.dir=out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Concepts of base, layer" in done.stdout and "Word pairs of tuned, layer" in done.stdout
    frames = {path.stem: pd.read_parquet(path) for path in (folder / "out" / "tables").iterdir()}
    return frames | {"json": json.loads((folder / "out" / "findings.json").read_text())["findings"]}


def finding(tables, name):
    return next(f for f in tables["json"] if f["name"] == name)


def test_the_command_writes_the_concepts_of_the_method(tables, pair, lms):
    table = tables["concepts"]
    assert len(table) == 2 * 2 * COMPONENTS
    for role, folder in zip(ROLES, pair, strict=True):
        for layer in range(2):
            expected = plain_concepts(folder, lms[role], layer)
            rows = table[(table["role"] == role) & (table["layer"] == layer)]
            np.testing.assert_allclose(rows["ratio"], expected[1][:COMPONENTS], rtol=1e-4)
            np.testing.assert_allclose(rows["cumulative"], np.cumsum(expected[1])[:COMPONENTS], rtol=1e-4)
            for row in rows.itertuples():
                cosine = expected[2][row.component]
                signed = np.array([cosine[VOCABULARY.index(word)] for word in row.words])
                same = np.allclose(row.cosines, signed, atol=1e-5) or np.allclose(row.cosines, -signed, atol=1e-5)
                assert same and len(row.words) == SHOWN
                best = [abs(cosine[i]) for i in plain_top(cosine, SHOWN)]
                np.testing.assert_allclose(np.abs(row.cosines), best, atol=1e-5)
    pd.testing.assert_frame_equal(
        tables["explained_variance"], table[["role", "layer", "component", "ratio", "cumulative"]]
    )
    told = table["description"].notna()
    assert (table["level"].notna() == told).all() and (table["task"].notna() == told).all()
    counts = table[told].groupby(["role", "layer"]).size().reindex(
        pd.MultiIndex.from_product([ROLES, [0, 1]]), fill_value=0
    )  # fmt: skip
    interpretability = tables["interpretability"].set_index(["role", "layer"])
    assert interpretability["described"].to_dict() == counts.to_dict()
    assert set(tables["annotation_shares"]["layers"]) == {"1", "3", "all"}  # two layers: quarters 1 and 3


def test_the_command_measures_the_rotation(tables, pair, lms):
    means = []
    for layer in range(2):
        (A, _, base_cosine), (B, _, tuned_cosine) = (
            plain_concepts(folder, lms[role], layer) for role, folder in zip(ROLES, pair, strict=True)
        )
        A, B = A[:COMPONENTS], B[:COMPONENTS]
        near = np.abs(A @ B.T)
        orders = itertools.permutations(range(COMPONENTS))
        best = max(orders, key=lambda order: sum(near[i, j] for i, j in enumerate(order)))
        rows = tables["rotation"][tables["rotation"]["layer"] == layer].sort_values("component")
        assert tuple(rows["matched"]) == best
        np.testing.assert_allclose(rows["cosine"], [near[i, j] for i, j in enumerate(best)], atol=1e-4)
        angles = np.degrees(np.arccos(np.linalg.svd(A @ B.T, compute_uv=False).clip(max=1)))
        np.testing.assert_allclose(np.sort(rows["angle"]), np.sort(angles), atol=0.05)
        for row in rows.itertuples():
            before = {VOCABULARY[i] for i in plain_top(base_cosine[row.component], TOP_WORDS)}
            after = {VOCABULARY[i] for i in plain_top(tuned_cosine[row.matched], TOP_WORDS)}
            assert set(row.left) == before - after and row.n_left == len(row.left)
            assert set(row.entered) == after - before and row.n_entered == len(row.entered)
        summary = tables["rotation_layers"].set_index("layer").loc[layer]
        assert summary["mean_cosine"] == pytest.approx(rows["cosine"].mean())
        assert summary["mean_angle"] == pytest.approx(rows["angle"].mean())
        assert summary["overlap"] == pytest.approx((np.cos(np.radians(angles)) ** 2).mean(), abs=1e-4)
        assert summary["mean_left"] == rows["n_left"].mean()
        assert summary["null_overlap_low"] < COMPONENTS / 32 < summary["null_overlap_high"]
        assert not summary["equal"]
        means.append(summary["mean_cosine"])
    overall = finding(tables, "concepts/rotation/all")
    assert overall["effect"] == pytest.approx(np.mean(means)) and overall["n"] == 2
    low, mean, high = (
        tables["rotation_layers"][f"null_cosine_{name}"].iloc[0] for name in ("low", "mean", "high")
    )
    assert overall["groups"]["random rotation"]["mean"] == pytest.approx(mean)
    assert min(means) > high > mean > low
    assert overall["p"] == pytest.approx(1 / 10_000)  # no resample of the null comes near
    for quarter in ("1", "3"):
        f = finding(tables, f"concepts/rotation/{quarter}")
        assert f["p_corrected"] == pytest.approx(2 * f["p"])


def test_the_command_writes_the_word_pairs_of_the_method(tables, plain):
    table = tables["word_pairs"]
    for role in ROLES:
        for (layer, head), expected in plain[role].items():
            here = (table["role"] == role) & (table["layer"] == layer) & (table["head"] == head)
            rows = table[here]
            assert {frozenset(each) for each in zip(rows["word_a"], rows["word_b"], strict=True)} == expected
            assert len(rows) == len(expected)
    heads = tables["head_pairs"].set_index(["layer", "head"])
    for place, before in plain["base"].items():
        after = plain["tuned"][place]
        expected = [len(before), len(after), len(after - before), len(before - after)]
        assert heads.loc[place].tolist() == expected
    assert heads["gained"].sum() > 0 and heads["lost"].sum() > 0


def test_the_command_counts_and_tests_verbs(tables, plain):
    def count(pairs, verb):
        return sum(verb in pair for pair in pairs)

    counted = tables["head_verbs"].set_index(["layer", "head", "verb"])
    changes = {}
    for place, (verb, kind) in itertools.product(
        plain["base"], [*((v, "instruction") for v in INSTRUCTION), *((v, "general") for v in GENERAL)]
    ):
        before, after = plain["base"][place], plain["tuned"][place]
        base, tuned = count(before, verb), count(after, verb)
        assert ((*place, verb) in counted.index) == bool(base + tuned)
        if base + tuned:
            row = counted.loc[(*place, verb)]
            assert row["kind"] == kind
            assert row[["base", "tuned"]].tolist() == [base, tuned]
            assert row[["gained", "lost"]].tolist() == [count(after - before, verb), count(before - after, verb)]
        changes.setdefault((verb, kind), {})[place] = np.sign(tuned - base)
    shares = tables["verb_shares"].set_index(["verb", "layers"])
    p = {}
    for name, layers in (("1", {0}), ("3", {1}), ("all", {0, 1})):
        groups = {"instruction": [], "general": []}
        for (verb, kind), by_head in changes.items():
            signs = [sign for (layer, _), sign in by_head.items() if layer in layers]
            more, fewer = signs.count(1), signs.count(-1)
            row = shares.loc[(verb, name)]
            assert (row["kind"], row["more"], row["fewer"], row["n"]) == (kind, more, fewer, more + fewer)
            if more + fewer:
                assert row["share"] == more / (more + fewer)
                groups[kind].append(more / (more + fewer))
            else:
                assert math.isnan(row["share"])
        f = finding(tables, f"pairs/instruction_vs_general/{name}")
        a, b = groups["instruction"], groups["general"]
        p[name] = stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue
        assert f["p"] == pytest.approx(p[name])
        assert f["n"] == len(a) + len(b)
        assert f["groups"]["instruction"]["mean"] == pytest.approx(np.mean(a))
        assert f["ci"][0] < f["effect"] < f["ci"][1]
        rng, pool = np.random.default_rng(1), np.array([*a, *b])
        drawn = np.array([rng.permutation(pool) for _ in range(4000)])
        differences = drawn[:, : len(a)].mean(axis=1) - drawn[:, len(a) :].mean(axis=1)
        share = (differences >= np.mean(a) - np.mean(b) - 1e-9).mean()
        assert f["p_others"]["permutation of verbs, one-sided"] == pytest.approx(share, abs=0.03)
    corrected = multipletests([p["1"], p["3"]], method="holm")[1]
    for name, value in zip(("1", "3"), corrected, strict=True):
        assert finding(tables, f"pairs/instruction_vs_general/{name}")["p_corrected"] == pytest.approx(value)
    assert finding(tables, "pairs/instruction_vs_general/all")["p_corrected"] is None


def test_another_process_finds_what_the_command_kept(tables, command, words, lms):
    cache, identities = command[0] / "cache", {role: lm.identity for role, lm in lms.items()}
    for view in (concepts_view(words, cache), pairs_view(words, cache)):
        assert not any(view.missing(identity) for identity in identities.values())
        section = view.section(identities)
        for name, table in section.tables.items():
            pd.testing.assert_frame_equal(
                table.astype({c: str for c, kind in table.dtypes.items() if kind == "category"}),
                tables[name].astype({c: str for c, kind in tables[name].dtypes.items() if kind == "category"}),
                check_dtype=False,
            )
        kept = {f["name"]: f["p"] for f in tables["json"]}
        assert {f.name: f.p for f in section.findings}.items() <= kept.items()


def test_the_configuration_makes_both_views_with_its_own_settings(tables, command, lms):
    options = [*command[1], "callbacks.concepts.layers=[-1]", "callbacks.concepts.shown=0", "seed=3"]
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        nodes = resolved(compose("analyze", options))["callbacks"]
    assert list(nodes) == ["concepts", "word_pairs", "progress"]  # the bars of the views come before the samples'
    concepts, pairs = (instantiate(nodes[name]) for name in ("concepts", "word_pairs"))
    assert isinstance(concepts, Concepts) and isinstance(pairs, WordPairs)
    assert (concepts.components, concepts.top_words, concepts.seed) == (COMPONENTS, TOP_WORDS, 3)
    assert (pairs.top, pairs.heads, pairs.seed) == (TOP, None, 3)
    assert not pairs.missing(lms["base"].identity)
    with pytest.raises(ConfigError) as told:
        concepts.missing(lms["base"].identity)
    assert str(told.value).splitlines() == [
        "callbacks.concepts.layers=[-1]: expected a list of whole numbers from 0, or null for all",
        "callbacks.concepts.shown=0: expected a whole number of at least 1",
    ]
