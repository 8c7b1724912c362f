"""Whole tuning runs on tiny models: against a plain loop, killed and resumed, on two ranks, and what they leave."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.in_process import analyze
from helpers.tiny import VOCAB, tiny, tokenizer
from hydra import compose, initialize_config_module
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file

import shiftlens as sl
from shiftlens.cli.analyze_command import resolved
from shiftlens.cli.train_command import run_train
from shiftlens.errors import ConfigError
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM
from shiftlens.prompts.schema import Prompt
from shiftlens.tuning.examples import Example
from shiftlens.tuning.fit import TuneRecord, fit
from shiftlens.tuning.plan import plan
from shiftlens.tuning.tune_options import TuneOptions

ROOT = Path(__file__).parents[2]
CPU = {"accelerator": "cpu", "devices": 1}
FULL = TuneOptions(
    method="full", steps=7, batch=4, rate=3e-3, warmup=0.3, clip=0.5, validate_every=3, keep="best",
    weight_decay=0.1,
)  # fmt: skip


def some(n: int, seed: int) -> list[Example]:
    draw = random.Random(seed)
    lengths = [draw.randint(4, 16) for _ in range(n)]
    return [Example(tuple(draw.randrange(3, VOCAB) for _ in range(k)), draw.randint(0, k - 2)) for k in lengths]


TRAIN, HELD_OUT = some(13, 0), some(6, 1)


def lm(family: str = "llama", dtype: torch.dtype = torch.float64) -> LM:
    return LM(tiny(family, dtype), tokenizer(), "none", Identity("tiny", "0", "", "float64"))


def run(folder: Path, options: TuneOptions = FULL, **more) -> tuple[TuneRecord, dict[str, torch.Tensor]]:
    start = more.pop("lm", None) or lm()
    record = fit(start, TRAIN, more.pop("held_out", HELD_OUT), options, folder, more.pop("trainer", CPU), **more)
    return record, start.model.state_dict()


def mean_loss(model: torch.nn.Module, some: list[Example]) -> torch.Tensor:
    losses = []
    for example in some:
        logits = model(torch.tensor([list(example.ids)])).logits[0]
        for place in range(max(example.prompt, 1), len(example.ids)):
            losses.append(-torch.log_softmax(logits[place - 1], -1)[example.ids[place]])
    return torch.stack(losses).mean()


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name, weight in a.items():
        torch.testing.assert_close(b[name], weight, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def plain_loop():
    """The same training, one dialogue at a time, in the fewest words."""
    model = tiny("llama").requires_grad_(True)
    big = [w for w in model.parameters() if w.ndim >= 2]
    small = [w for w in model.parameters() if w.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": big, "weight_decay": 0.1}, {"params": small, "weight_decay": 0.0}])
    train, held_out = [], [(0, mean_loss(model, HELD_OUT).item())]
    rates = [1 / 3, 2 / 3, 1, *[(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]]  # 3 of 7 steps rise
    for number, step in enumerate(plan(TRAIN, FULL)):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * rates[number]
        loss = mean_loss(model, [TRAIN[index] for index in step.indices])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        train.append(loss.item())
        if number + 1 in (3, 6, 7):
            held_out.append((number + 1, mean_loss(model, HELD_OUT).item()))
    return model.state_dict(), train, held_out


@pytest.mark.parametrize("change", [{}, {"accumulate": 2}, {"accumulate": 3}, {"gradient_checkpointing": True}])
def test_a_run_ends_with_the_weights_of_a_plain_loop(plain_loop, tmp_path, change):
    weights, train, held_out = plain_loop
    record, found = run(tmp_path, FULL.replace(keep="last", **change))
    close(weights, found, 1e-9)
    assert record.train_loss == pytest.approx(train, abs=2e-6)
    assert [step for step, _ in record.held_out_loss] == [0, 3, 6, 7]
    assert [loss for _, loss in record.held_out_loss] == pytest.approx([loss for _, loss in held_out], abs=2e-6)
    assert (record.steps, record.planned, record.kept) == (7, 7, 7)


def test_packed_steps_have_the_loss_and_gradient_of_padded_ones(tmp_path):
    options = FULL.replace(batching="packed", keep="last")
    _, packed = run(tmp_path / "packed", options)
    model = tiny("llama").requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [
            {"params": [w for w in model.parameters() if w.ndim >= 2], "weight_decay": 0.1},
            {"params": [w for w in model.parameters() if w.ndim < 2], "weight_decay": 0.0},
        ]
    )
    rates = [1 / 3, 2 / 3, 1, *[(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]]
    for number, step in enumerate(plan(TRAIN, options)):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * rates[number]
        optimizer.zero_grad()
        mean_loss(model, [TRAIN[index] for index in step.indices]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    close(model.state_dict(), packed, 1e-9)


def test_lora_checkpoints_hold_only_what_is_trained(tmp_path):
    record, _ = run(tmp_path, FULL.replace(method="lora", rank=2))
    for name in ("last.ckpt", "best.ckpt"):
        saved = torch.load(tmp_path / "checkpoints" / name, weights_only=True)
        assert saved["state_dict"]
        assert all("lora_" in key for key in saved["state_dict"])
        assert sum(weight.numel() for weight in saved["state_dict"].values()) == record.trained_weights
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(last["optimizer_states"][0]["state"]) == len(last["state_dict"])
    assert not list(tmp_path.rglob(".*"))


def test_the_best_weights_are_kept_and_a_run_without_progress_stops(tmp_path):
    wild = FULL.replace(steps=30, rate=0.3, validate_every=2, patience=2, keep="best")
    record, found = run(tmp_path, wild)
    losses = dict(record.held_out_loss)
    assert record.steps < 30
    assert record.kept == min((step for step in losses if step), key=lambda step: losses[step])
    assert record.steps == record.kept + 2 * 2
    model = tiny("llama")
    model.load_state_dict(found)
    assert mean_loss(model, HELD_OUT).item() == pytest.approx(losses[record.kept], abs=1e-6)


def test_without_held_out_examples_the_last_weights_are_kept(tmp_path):
    with pytest.raises(ConfigError, match=r"tune\.keep=last"):
        run(tmp_path, held_out=[])
    record, _ = run(tmp_path, FULL.replace(keep="last"), held_out=[])
    assert record.held_out_loss == ()
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


class Look(Callback):
    """Takes a snapshot after some steps."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        now, ids = pl_module.snapshot(), torch.arange(3, 12)[None]
        with torch.no_grad():
            self.seen.append((now.identity.hash, now.model(ids).logits, pl_module.model(ids).logits))
        assert pl_module.model.training


def test_snapshots_are_the_model_of_the_moment_and_disturb_nothing(tmp_path):
    options, look = FULL.replace(method="lora", keep="last"), Look()
    _, without = run(tmp_path / "a", options)
    _, found = run(tmp_path / "b", options, callbacks=[look])
    assert all(torch.equal(found[name], weight) for name, weight in without.items())
    assert len({name for name, _, _ in look.seen} | {lm().identity.hash}) == 8
    for _, now, wanted in look.seen:
        torch.testing.assert_close(now, wanted, rtol=1e-9, atol=1e-9)


def test_curves_reach_the_loggers_at_the_step_they_belong_to(tmp_path):
    logger = CSVLogger(tmp_path, name="csv")
    record, _ = run(tmp_path, loggers=[logger])
    logger.finalize("success")
    table = pd.read_csv(Path(logger.log_dir) / "metrics.csv")
    train = table.dropna(subset=["train/loss"])
    assert train["step"].tolist() == list(range(1, 8))
    assert train["train/loss"].tolist() == pytest.approx(record.train_loss, abs=2e-6)
    held_out = table.dropna(subset=["held_out/loss"])
    assert list(zip(held_out["step"], held_out["held_out/loss"].round(6), strict=True)) == list(
        record.held_out_loss
    )
    assert table["train/rate"].max() == pytest.approx(3e-3)


def test_a_learning_rate_can_be_looked_for_and_the_run_starts_where_it_would_have(tmp_path):
    record, _ = run(tmp_path, FULL.replace(lr_find=True, steps=30))
    assert record.rate != FULL.rate
    assert 1e-6 <= record.rate <= 1e-2
    assert record.steps == 30
    assert record.held_out_loss[0][1] == pytest.approx(mean_loss(tiny("llama"), HELD_OUT).item(), abs=1e-6)


# The command


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
