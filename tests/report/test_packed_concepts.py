"""The concepts packed into the page are those of the tables, however many there are."""

from __future__ import annotations

import base64
import json

import numpy as np
import pandas as pd
import pytest
from helpers.pages import embedded
from helpers.weight_tables import HOSTILE, make_analysis, make_tables

from shiftlens.analyses.concepts.browser import pack_concepts
from shiftlens.models.roles import ROLES
from shiftlens.report.page import render_report
from shiftlens.results.analysis import Analysis


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return make_tables()


@pytest.fixture(scope="module")
def hostile() -> Analysis:
    tables = make_tables(words=HOSTILE * 3)
    return make_analysis({**tables, "concepts": tables["concepts"].assign(note=HOSTILE[1])})


def unpacked_words(packed: dict, role: str, layer: int) -> list[list[tuple[str, bool]]]:
    """Words and marks of each concept, read byte by byte as the page's script does."""
    part = packed["layers"][layer][role]
    raw, bits = base64.b64decode(part["words"]), base64.b64decode(part["marks"])
    size, top = packed["word_bytes"], packed["top"]
    numbers = [int.from_bytes(raw[i : i + size], "little") for i in range(0, len(raw), size)]
    marks = [bool(bits[i // 8] >> (7 - i % 8) & 1) for i in range(len(numbers))]
    words = [(packed["strings"][n], mark) for n, mark in zip(numbers, marks, strict=True)]
    return [[word for word in words[i : i + top] if word[0]] for i in range(0, len(words), top)]


def check_packed(packed: dict, tables: dict[str, pd.DataFrame]) -> None:
    concepts, rotation = tables["concepts"], tables["rotation"]
    for place, layer in enumerate(sorted(concepts["layer"].unique())):
        turned = rotation[rotation["layer"] == layer].set_index("component")
        listed = {role: unpacked_words(packed, role, place) for role in ROLES}
        for row in concepts[(concepts["layer"] == layer) & (concepts["component"] < packed["kept"])].itertuples():
            if row.role == "base":
                only = turned.loc[row.component, "left"]
            else:
                only = turned[turned["matched"] == row.component].iloc[0]["entered"]
            assert listed[row.role][row.component] == [(word, word in only) for word in row.words]
            part = packed["layers"][place][row.role]
            told = packed["strings"][part["description"][row.component]]
            level, task = part["level"][row.component], part["task"][row.component]
            assert told == ("" if pd.isna(row.description) else row.description)
            for name, number, names in ((row.level, level, "levels"), (row.task, task, "tasks")):
                assert number == 0 if pd.isna(name) else packed[names][number - 1] == name
            assert part["ratio"][row.component] == pytest.approx(row.ratio, rel=0.01)
        assert packed["layers"][place]["match"] == turned["matched"].tolist()[: packed["kept"]]
        assert packed["layers"][place]["cosine"] == pytest.approx(turned["cosine"][: packed["kept"]], abs=1e-4)


def test_packed_concepts_are_those_of_the_tables(tables: dict[str, pd.DataFrame], hostile: Analysis) -> None:
    for run in (tables, dict(hostile.tables)):
        packed = embedded(render_report(make_analysis(run)), "data-concepts")
        assert packed["kept"] == packed["components"] == 30
        check_packed(packed, run)


def test_many_words_take_four_bytes_each(tables: dict[str, pd.DataFrame]) -> None:
    # 70,000 different words are more than two bytes can number.
    words = [[f"w{i * 1250 + j}" for j in range(1250)] for i in range(56)]
    rows = pd.DataFrame(
        {"role": ["base", "tuned"] * 28, "layer": 0, "component": np.arange(56) // 2, "ratio": 0.1, "note": ""}
    )
    rows = rows.assign(words=words, description=None, level=None, task=None)
    packed = pack_concepts(rows, None)
    assert packed["word_bytes"] == 4
    assert [word for word, _ in unpacked_words(packed, "tuned", 0)[27]] == words[55]


def test_large_runs_embed_their_first_concepts_and_say_so(
    tables: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pack_concepts(tables["concepts"], tables["rotation"])
    limit = len(json.dumps(whole, ensure_ascii=False)) // 2
    packed = pack_concepts(tables["concepts"], tables["rotation"], limit)
    assert 10 <= packed["kept"] < 20
    assert limit // 2 < len(json.dumps(packed, ensure_ascii=False)) <= limit + 40  # the two counts are added after
    check_packed(packed, tables)
    monkeypatch.setattr("shiftlens.analyses.concepts.section.pack_concepts", lambda *_: packed)
    assert f"The first {packed['kept']} of 30 concepts of each layer are here" in render_report(
        make_analysis(tables)
    )


def test_full_size_run_stays_below_the_limit() -> None:
    rng = np.random.default_rng(0)
    listed = [[f"some-word-{n}" for n in row] for row in rng.integers(0, 20_000, (30 * 300 * 2, 30))]
    grid = pd.MultiIndex.from_product([ROLES, range(30), range(300)], names=["role", "layer", "component"])
    concepts = pd.DataFrame(index=grid).reset_index()
    concepts = concepts.assign(words=listed, ratio=0.001, level="syntax", task="none", note="")
    concepts["description"] = [f"words about {a} and {b}" for a, b, *_ in listed]
    packed = pack_concepts(concepts, None)
    assert len(json.dumps(packed, ensure_ascii=False)) < 3_001_000
    assert packed["kept"] > 200
