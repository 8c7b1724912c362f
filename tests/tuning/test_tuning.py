"""Whole tuning runs on tiny models, against a plain loop."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.state_dicts import close
from helpers.tiny import VOCAB, tiny, tokenizer
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from shiftlens.errors import ConfigError
from shiftlens.models.identity import Identity
from shiftlens.models.loading import LM
from shiftlens.tuning.examples import Example
from shiftlens.tuning.fit import TuneRecord, fit
from shiftlens.tuning.plan import plan
from shiftlens.tuning.tune_options import TuneOptions

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
