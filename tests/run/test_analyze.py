"""The whole command on a tiny pair of folders: once as a user types it, then in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.command import RECORDS, run, run_here

import shiftlens as sl

pytestmark = pytest.mark.command


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "my.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in RECORDS))
    return path


@pytest.fixture(scope="module")
def words(pair, prompts):
    return [
        f"model.base={pair[0]}", f"model.tuned={pair[1]}", "data=jsonl", f"data.path={prompts}", "saliency.b=0",
        "data.max_new_tokens=8",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def first(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = run(*words, "hydra.run.dir=out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_everything_of_a_run_is_in_its_folder(first):
    folder, done = first
    out = folder / "out"
    assert {path.name for path in (out / "tables").iterdir()} == {
        "samples.parquet", "tokens.parquet", "profile.parquet", "findings.parquet", "sensitivity.parquet",
        "methods.parquet", "samples_by_method.parquet",
    }  # fmt: skip
    assert (out / "report.html").stat().st_size > 10_000
    record = json.loads((out / "findings.json").read_text())
    assert {f["name"] for f in record["findings"]} >= {
        "density/followed_vs_unfollowed",
        "density/base_vs_tuned",
    }
    t2 = next(f for f in record["findings"] if f["name"] == "density/base_vs_tuned")
    assert t2["n"] == 3
    assert set(t2["groups"]) == {"base", "tuned"}
    fingerprints = {record["provenance"]["models"][role]["fingerprint"] for role in ("base", "tuned")}
    assert len(fingerprints) == 2
    assert "wandb sync" in done.stdout
    # Without a given response, a rating is of the tuned model's own one.
    t1 = {f["name"]: f for f in record["findings"]}
    assert t1["density/followed_vs_unfollowed"]["groups"]["followed"]["n"] == 1
    assert t1["density/followed_vs_unfollowed_in_base"]["groups"]["followed"]["n"] == 0


def test_samples_are_what_the_python_interface_gives(first, pair):
    """The table against attribute() and the formulas, for both roles."""
    samples = pd.read_parquet(first[0] / "out" / "tables" / "samples.parquet").set_index(["role", "id"])
    for role, folder in zip(("base", "tuned"), pair, strict=True):
        lm = sl.load(str(folder))
        for record in RECORDS:
            att = sl.attribute(lm, record["text"], max_new_tokens=8)
            a = sl.density(sl.score(att.importance, L=10, b=0), p=4)
            start, end = record["instruction"][0]
            places = np.cumsum([0, *map(len, att.prompt_tokens)])
            mask = (np.minimum(places[1:], end) > np.maximum(places[:-1], start))[: len(a)]
            row = samples.loc[(role, record["id"])]
            assert row["response"] == att.response
            assert row["instruction_score"] == pytest.approx(sl.instruction_score(a, mask), rel=1e-6)


def test_the_same_again_does_no_model_work(first, words):
    folder, _ = first
    again = run_here(*words, "hydra.run.dir=again", "logger=none", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("no model work") == 4  # the responses, then their removals
    old, new = (json.loads((folder / name / "findings.json").read_text())["findings"] for name in ("out", "again"))
    assert old == new


def test_another_b_needs_no_model_but_another_length_does(first, words):
    folder, _ = first
    other = run_here(*words, "saliency.b=5", "saliency.L=20", "hydra.run.dir=b5", "logger=csv", cwd=folder)
    assert other.stdout.count("no model work") == 4, other.stderr
    assert list((folder / "b5").rglob("metrics.csv"))
    longer = run_here(
        *words, "data.max_new_tokens=9", "data.limit=1", "hydra.run.dir=l9", "logger=tensorboard", cwd=folder
    )
    assert longer.stdout.count("1 samples to explain") == 4, longer.stderr
    assert list((folder / "l9").rglob("events.out.tfevents*"))


def test_the_offline_wandb_run_reads_back(first):
    run_folder = next((first[0] / "out" / "wandb").glob("offline-run-*"))
    wandb = Path(sys.executable).parent / "wandb"
    shown = subprocess.run(
        [wandb, "leet", "inspect", "--json", run_folder], capture_output=True, text=True, check=True
    ).stdout
    for name in (
        "base/instruction_score",
        "tuned/instruction_score",
        "shift/instruction_score",
        "max_new_tokens",
    ):
        assert name in shown


def test_five_faults_are_one_error_that_lists_five(words, tmp_path):
    lines = [
        '{"text": "fine"}',
        '{"text": ""}',
        "{broken",
        '{"text": "short", "instruction": [[0, 99]]}',
        '{"text": "ok", "rating": "good"}',
        '{"text": "ok", "check": {"name": "no_such_check"}}',
    ]
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    done = run_here(*words, f"data.path={tmp_path / 'bad.jsonl'}", "logger=none", cwd=tmp_path)
    assert done.returncode == 1
    assert "5 problems" in done.stderr
    assert sum(line.strip().startswith("row ") for line in done.stderr.splitlines()) == 5
    assert "Traceback" not in done.stderr


def test_faulty_rows_are_skipped_on_request_and_counted(words, tmp_path):
    (tmp_path / "some.jsonl").write_text('{"text": "write it"}\n{"text": ""}\n{"text": "fix it"}\n')
    done = run_here(
        *words, f"data.path={tmp_path / 'some.jsonl'}", "data.on_error=skip", "hydra.run.dir=out", "logger=none",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 prompts left out" in done.stdout
    provenance = json.loads((tmp_path / "out" / "findings.json").read_text())["provenance"]
    assert provenance["data"]["n"] == 2
    assert len(provenance["data"]["skipped"]) == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["saliency.b=10", "saliency.L=10", "saliency.mode=fast"],
            ["saliency.b=10: expected a whole number from 0 to saliency.L-1=9", "saliency.mode=fast"],
        ),
        (["model=vicuna"], ["Pair 'vicuna'", "model=bundled"]),
        (["data=jsonl"], ["data.path"]),
        (["report.prompt=nobody"], ["no such id"]),
    ],
)
def test_errors_are_told_without_a_traceback(words, tmp_path, more, told):
    base = [] if any(word.startswith(("model=", "data=")) for word in more) else words
    done = run_here(*base, *more, "logger=none", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for part in told:
        assert part in done.stderr


def test_train_tells_all_faults_of_its_settings_at_once(tmp_path):
    done = run_here("tune.batch=0", "tune.rate=-1", "hydra.run.dir=out", cwd=tmp_path, script="train.py")
    assert done.returncode == 1
    assert "tune.batch=0: expected a whole number" in done.stderr
    assert "tune.rate=-1: expected a number above 0" in done.stderr
    assert "Traceback" not in done.stderr


def test_given_responses_are_explained_whole_and_long_prompts_refused(words, tmp_path):
    given = "write the words in order, please, and then some more of them"
    rows = [{"id": "g", "text": "write it", "response": given}, {"id": "long", "text": "words " * 300}]
    (tmp_path / "mixed.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mixed = [*words, f"data.path={tmp_path / 'mixed.jsonl'}", "logger=none", "hydra.run.dir=out"]
    refused = run_here(*mixed, cwd=tmp_path)
    assert refused.returncode == 1
    assert "data.on_long=cut" in refused.stderr
    assert "prompt long" in refused.stderr
    done = run_here(*mixed, "data.on_long=cut", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    samples = pd.read_parquet(tmp_path / "out" / "tables" / "samples.parquet").set_index(["role", "id"])
    for role in ("base", "tuned"):
        assert samples.loc[(role, "g"), "response"] == given
        assert samples.loc[(role, "g"), "n_response"] > 8  # data.max_new_tokens is 8
        assert samples.loc[(role, "long"), "n_cut"] > 0
