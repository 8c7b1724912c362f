"""Tuning by command and from Python: killed and resumed, on two ranks, refused, and what it leaves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.in_process import analyze
from helpers.state_dicts import close
from hydra import compose, initialize_config_module
from safetensors.torch import load_file

import shiftlens as sl
from shiftlens.cli.analyze_command import resolved
from shiftlens.cli.train_command import run_train
from shiftlens.errors import ConfigError
from shiftlens.prompts.schema import Prompt

pytestmark = pytest.mark.command

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def words(pair, tmp_path_factory):
    """Arguments of a run on ten prompts with the tiny base."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    lines = [
        {"text": f"Write the words: {' '.join(draw.choices(['me', 'him', 'order', 'French'], k=2 + i % 4))}",
         "reference": "in order" * (1 + i % 3)}
        for i in range(10)
    ]  # fmt: skip
    (folder / "ten.jsonl").write_text("\n".join(map(json.dumps, lines)))
    path = folder / "ten.jsonl"
    return [
        f"model.base={pair[0]}", "data=jsonl", f"data.path={path}", "data@held_out=jsonl", f"held_out.path={path}",
        "callbacks=none", "logger=none", f"paths.cache={folder / 'cache'}", "tune.batch=4", "tune.validate_every=3",
        "tune.rate=0.01", "tune.steps=10", "trainer.accelerator=cpu",
    ]  # fmt: skip


def train(folder: Path, *words: str) -> Path:
    """`python train.py WORDS` without a process of its own."""
    with initialize_config_module("shiftlens.conf", version_base="1.3"):
        run_train(resolved(compose("train", list(words))), folder)
    return folder


def command(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, "hydra.run.dir=out"],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
        env={
            **os.environ, "COLUMNS": "160", "SHIFTLENS_CHECK_SHAPES": "0", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT / "tests"),
        },
    )  # fmt: skip


def test_a_killed_and_resumed_run_ends_with_the_bytes_of_an_uninterrupted_one(words, tmp_path, capsys):
    words = [*words, "tune.rank=2", "tune.dropout=0.2", "tune.accumulate=2", "tune.validate_every=4"]
    whole = train(tmp_path / "whole", *words)
    died = command(
        tmp_path, *words, "+callbacks.killer._target_=helpers.killer.Killer", "+callbacks.killer.step=6"
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    out = tmp_path / "out"
    at = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert at["global_step"] == 4  # in the middle of the second pass: ten dialogues are three steps
    with pytest.raises(ConfigError, match="ckpt_path=last"):
        train(out, *words)
    with pytest.raises(ConfigError, match="other settings, examples or weights"):
        train(out, *words, "ckpt_path=last", "seed=1")
    capsys.readouterr()
    train(out, *words, "ckpt_path=last")
    assert "going on from" in capsys.readouterr().out
    one, other = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (whole, out))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all(torch.equal(one["state_dict"][k], other["state_dict"][k]) for k in one["state_dict"])
    state, others = (c["optimizer_states"][0]["state"] for c in (one, other))
    assert all(torch.equal(state[i][k], others[i][k]) for i in state for k in ("exp_avg", "exp_avg_sq"))
    assert one["tuning"]["history"] == other["tuning"]["history"]
    name = Path("tuned") / "adapter_model.safetensors"
    assert (whole / name).read_bytes() == (out / name).read_bytes()
    # What is done is not done again.
    train(out, *words, "ckpt_path=last")
    assert (
        torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["tuning"]["history"]
        == (one["tuning"]["history"])
    )


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_end_with_the_weights_of_one(words, tmp_path, strategy):
    # Ten dialogues in steps of four, dealt to two ranks and two micro-batches, leave ranks without work.
    words = [*words, "tune=full", "tune.rate=0.002", "tune.accumulate=2"]
    one = train(tmp_path / "one", *words)
    two = command(tmp_path, *words, f"trainer={strategy}", "trainer.devices=2")
    assert two.returncode == 0, two.stderr
    found = [load_file(folder / "tuned" / "model.safetensors") for folder in (one, tmp_path / "out")]
    close(*found, 2e-5)
    records = [json.loads((f / "tuned" / "record.json").read_text())["result"] for f in (one, tmp_path / "out")]
    assert records[1]["ranks"] == 2
    assert records[1]["train_loss"] == pytest.approx(records[0]["train_loss"], rel=1e-4)
    for (step, loss), (wanted_step, wanted) in zip(*(r["held_out_loss"] for r in records), strict=True):
        assert step == wanted_step
        assert loss == pytest.approx(wanted, rel=1e-4)
    assert two.stdout.count("the tuned model:") == 1


def test_more_ranks_than_dialogues_are_refused_before_any_work(words, tmp_path):
    with pytest.raises(ConfigError, match=r"12 ranks for 10 training examples.*trainer\.devices=10"):
        train(tmp_path, *words, "trainer=ddp", "trainer.devices=12", "tune.batch=16")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_tuned_folder_is_analysed_at_once(words, pair, tmp_path, capsys, method):
    out = train(tmp_path / "run", *words, f"tune={method}")
    told = capsys.readouterr().out
    assert f"model.base={pair[0]} model.tuned={out / 'tuned'}" in told
    (tmp_path / "analysis").mkdir()
    analysis, _ = analyze(tmp_path / "analysis", (pair[0], out / "tuned"))
    models = analysis.provenance["models"]
    assert models["base"]["fingerprint"] != models["tuned"]["fingerprint"]
    assert models["tuned"]["template"] == models["base"]["template"] != "none"
    record = json.loads((out / "tuned" / "record.json").read_text())
    assert record["start"]["fingerprint"] == models["base"]["fingerprint"]
    assert record["start"]["template"] == models["tuned"]["template"]
    assert record["result"]["held_out_loss"][-1][1] < record["result"]["held_out_loss"][0][1]
    assert record["result"]["steps"] == 10
    assert record["seed"] == 0
    assert len(record["result"]["train_hash"]) == 32
    if method == "lora":
        config = json.loads((out / "tuned" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "base"  # no path of this machine
        saved = load_file(out / "tuned" / "adapter_model.safetensors")
        assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
        trained = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        assert len(saved) == len(trained)
        assert sum(w.numel() for w in saved.values()) == record["result"]["trained_weights"]


def test_the_python_interface_tunes_a_loaded_model(pair, tmp_path):
    model = sl.load(str(pair[0]), cache=str(tmp_path / "cache"))
    asks = [Prompt(str(i), "write the words", ((0, 5),), response="in order " * i) for i in range(1, 5)]
    record = sl.tune(model, asks, tmp_path, held_out=asks, method="full", steps=6, batch=2, rate=0.01)
    assert record.held_out_loss[-1][1] < record.held_out_loss[0][1]
    again = sl.load(str(tmp_path / "tuned"), cache=str(tmp_path / "cache"))
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), model.model.parameters(), strict=True))
    with pytest.raises(ConfigError, match=r"tune\.method=hard.*lora, full"):
        sl.tune(model, asks, tmp_path, method="hard")


def test_settings_that_cannot_be_used_end_the_command_with_one_message(words, tmp_path):
    with pytest.raises(ConfigError, match=r"tune\.start=middle"):
        train(tmp_path, *words, "tune.start=middle")
    with pytest.raises(ConfigError, match=r"ckpt_path=nowhere\.ckpt: no such file"):
        train(tmp_path, *words, "ckpt_path=nowhere.ckpt")
