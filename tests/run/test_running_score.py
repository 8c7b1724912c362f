"""The mean instruction score that a run tells is that of the samples it explained."""

from __future__ import annotations

import re

import pytest
from helpers.in_process import RECORDS, analyze

pytestmark = pytest.mark.command


def means(told):
    return re.findall(r"mean instruction score of these samples: (\S+)", told)


@pytest.mark.parametrize("include", ["true", "false"])
def test_the_mean_is_that_of_the_table_and_only_of_what_was_explained(pair, tmp_path, include):
    words = ["callbacks=evidence", "callbacks.faithfulness.n=1", f"saliency.include_response={include}"]
    # The last two prompts are one text with two masks: one row of the ledger, two samples.
    twins = [RECORDS[0], {**RECORDS[0], "id": "twin", "instruction": [[0, 3]], "context": []}]
    analysis, told = analyze(tmp_path, pair, *words, records=[RECORDS[1], *twins])
    table = analysis.tables["samples"].groupby("role")["instruction_score"].mean()
    assert sorted(means(told)) == sorted(f"{table[role]:.3f}" for role in ("base", "tuned"))
    more, told = analyze(tmp_path, pair, *words, records=[RECORDS[1], *twins, RECORDS[2]])
    samples = more.tables["samples"]
    new = samples[samples["id"] == "three"].set_index("role")["instruction_score"]
    assert sorted(means(told)) == sorted(f"{new[role]:.3f}" for role in ("base", "tuned"))
    _, told = analyze(tmp_path, pair, *words, records=[RECORDS[1], *twins, RECORDS[2]])
    assert means(told) == []
