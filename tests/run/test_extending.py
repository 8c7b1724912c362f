"""The recipes of docs/extending.md as they stand there, in a folder of their own outside the package."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.command import RECORDS, ROOT, run_here
from helpers.plain_weights import write_words

pytestmark = pytest.mark.command

TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
RECIPES = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}


def block(recipe: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", RECIPES[recipe], re.S)
    assert found, f"{recipe} has no {language}"
    return found[1]


@pytest.fixture
def mine(tmp_path, pair, monkeypatch):
    """Runs a recipe's command beside its `mine.py`; returns the run's folder and what it printed."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # each recipe has a module of this name

    def run(recipe: str, *more: str, swap: bool = False) -> tuple[Path, str]:
        (tmp_path / "mine.py").write_text(block(recipe, "python"))
        (tmp_path / "my.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
        (tmp_path / "prompts.txt").write_text("Write the words in order\n\nFix the grammar: me goes\n")
        words = shlex.split(block(recipe, "sh"))
        assert words[:3] == ["python", "analyze.py", "PAIR"]
        own = [f"model.base={pair[0]}", f"model.tuned={pair[1]}", "data=jsonl", "data.max_new_tokens=6",
               "hydra.run.dir=out", f"paths.cache={tmp_path / 'cache'}", "saliency.b=0"]  # fmt: skip
        if not any(word.startswith("data.path") for word in words):
            own.append("data.path=my.jsonl")
        if not any(word.startswith("logger") for word in (*words, *more)):
            own.append("logger=none")
        done = run_here(*more, *own, *([] if swap else words[3:]), cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return tmp_path / "out", done.stdout

    return run


def findings(out: Path) -> list[dict]:
    return json.loads((out / "findings.json").read_text())["findings"]


def test_an_analysis_appears_on_the_page_in_the_terminal_and_in_wandb(mine, tmp_path):
    out, told = mine("An analysis with its section", "logger=wandb", "logger.wandb.mode=offline")
    (finding,) = (f for f in findings(out) if f["name"] == "lengths/base_vs_tuned")
    table = pd.read_parquet(out / "tables" / "lengths.parquet")
    assert finding["n"] == len(table) == 3
    assert finding["verdict"] in ("supported", "not supported", "not testable")
    page = (out / "report.html").read_text()
    assert "How long responses are" in page and 'id="data-lengths"' in page
    assert "lengths/base_vs_tuned" in re.sub(r"[│\s]", "", told)
    (run,) = (out / "wandb").glob("offline-run-*")
    wandb = Path(sys.executable).with_name("wandb")
    back = subprocess.run(
        [wandb, "leet", "inspect", "--summary", "--json", run],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    summary = json.loads(back)["summary"]
    assert summary["charts/lengths"]["_type"] == "plotly-file"
    assert summary["tables/lengths"]["nrows"] == 3
    assert summary["findings/lengths/base_vs_tuned/all/verdict"] == finding["verdict"]


def test_an_analysis_appears_in_a_sweep(mine, tmp_path):
    mine("An analysis with its section", "-m", "saliency.p=2,4", "hydra.sweep.dir=sweep")
    cells = pd.read_parquet(tmp_path / "sweep" / "tables" / "cells.parquet")
    assert (cells["name"] == "lengths/base_vs_tuned").sum() == 2
    assert "Did tuning change how long responses are?" in (tmp_path / "sweep" / "summary.html").read_text()


def test_a_method_has_rows_of_its_own(mine, tmp_path):
    out, _ = mine("A method")
    tokens = pd.read_parquet(out / "tables" / "tokens.parquet")
    record = json.loads((out / "findings.json").read_text())["provenance"]["attribution"]
    assert record["methods"] == {"absolute": {"name": "absolute", "absolute": True}}
    ledger = [pd.read_parquet(path) for path in (tmp_path / "outputs" / "ledger").glob("*/*.parquet")]
    rows = pd.concat(ledger)
    assert set(rows["method"]) == {"absolute"} and all((values >= 0).all() for values in rows["values"])
    out, told = mine("A method", "saliency.method=gradient", swap=True)
    assert "samples to explain" in told  # not those of the other method
    assert not tokens["density"].equals(pd.read_parquet(out / "tables" / "tokens.parquet")["density"])


def test_a_control_joins_the_others(mine):
    out, _ = mine("A control")
    (finding,) = (f for f in findings(out) if f["name"] == "density/base_vs_tuned")
    names = [control["name"] for control in finding["controls"]]
    assert names[-2:] == ["prompt length", "exact removal"] and len(names) == 10
    record = json.loads((out / "findings.json").read_text())["provenance"]["evidence"]
    assert record["further_controls"] == ["length"]


def test_a_data_reader(mine):
    out, _ = mine("A data reader")
    samples = pd.read_parquet(out / "tables" / "samples.parquet")
    assert set(samples["prompt"]) == {"Write the words in order", "Fix the grammar: me goes"}
    assert set(samples["dataset"]) == {"lines"}


def test_an_annotator(mine, tmp_path):
    words = write_words(tmp_path)
    out, _ = mine("An annotator", *(f"words.{key}={json.dumps(value)}" for key, value in words.items()))
    concepts = pd.read_parquet(out / "tables" / "concepts.parquet")
    assert len(concepts) and concepts["description"].str.startswith("words near ").all()


def test_a_logger(mine, tmp_path):
    _, told = mine("A logger")
    (entry,) = (json.loads(line) for line in (tmp_path / "numbers.jsonl").read_text().splitlines())
    assert "shift/instruction_score" in entry
    assert entry["findings/density/base_vs_tuned/jsonl/verdict"]
    assert "numbers are in numbers.jsonl" in told


def test_a_family(tmp_path):
    (tmp_path / "mine.py").write_text(block("A family", "python"))
    info = tmp_path / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    group, point = re.findall(r'entry-points\."(.*?)"\]\n(.*?)\n', block("A family", "toml"))[0]
    (info / "entry_points.txt").write_text(f"[{group}]\n{point.replace(chr(34), '')}\n")
    code = """
import torch
from transformers import StableLmConfig, StableLmForCausalLM
from shiftlens.models.families import view
torch.manual_seed(0)
model = StableLmForCausalLM(StableLmConfig(vocab_size=97, hidden_size=32, intermediate_size=56, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=2)).double().eval()
with torch.no_grad():
    for weight in model.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
seen = []
layer = model.model.layers[0]
layer.self_attn.q_proj.register_forward_hook(lambda m, i, out: seen.append(out))
layer.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
model(torch.tensor([[1, 5, 9]]))
x, query = seen
qk = view(model).query_key(0)
centred = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + layer.input_layernorm.eps).sqrt()
ours = torch.einsum("btw,hwd->bthd", centred, qk.query) + qk.query_bias
torch.testing.assert_close(ours.flatten(2), query)
print("agree")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.stdout.strip() == "agree", done.stderr
