"""A measured tuning that is cut short or runs on several ranks: nothing is lost, and one rank measures."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from helpers.shift_run import callback, tune
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

import shiftlens as sl
from shiftlens.errors import ConfigError
from shiftlens.models.loading import LM
from shiftlens.tuning.lora import plain_model
from shiftlens.tuning.ranks import Sharded

pytestmark = pytest.mark.usefixtures("small_grid")


class Killed(Callback):
    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.global_step == 3:
            raise KeyboardInterrupt


def test_a_resumed_run_has_the_whole_curve(pair, shift_run, held_out, shift_words, tmp_path):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        tune(pair, tmp_path, [callback(tmp_path, held_out, shift_words), Killed()])
    table = pd.read_parquet(tmp_path / "tables" / "curves.parquet")
    assert sorted(table["step"].unique()) == [0, 1, 2]  # written after each look
    last = tmp_path / "checkpoints" / "last.ckpt"
    kept = torch.load(last, weights_only=True)["callbacks"]["ShiftCurves"]
    assert sorted(kept["steps"]) == [0, 2]
    with pytest.raises(ConfigError, match="of other held-out prompts"):
        tune(pair, tmp_path, [callback(tmp_path, held_out, shift_words, probes=2)], ckpt_path=last)
    resumed = callback(tmp_path, held_out, shift_words)
    tune(pair, tmp_path, [resumed], ckpt_path=last)
    for name in ("curves", "probes", "held_out", "rotation_layers", "head_pairs"):
        ours, theirs = (pd.read_parquet(f / "tables" / f"{name}.parquet") for f in (tmp_path, shift_run.folder))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    ours, theirs = (shift.record() for shift in (resumed, shift_run.shift))
    assert ours["findings"] == theirs["findings"]


def test_a_run_killed_before_its_conclusions_still_draws_them(pair, shift_run, held_out, shift_words, tmp_path):
    shift = callback(tmp_path, held_out, shift_words)
    lm = tune(pair, tmp_path, [shift], ckpt_path=shift_run.folder / "checkpoints" / "last.ckpt")  # no step is left
    shift.conclude(LM(plain_model(lm.model), lm.tokenizer, lm.template, lm.identity), 4)
    ours, theirs = (
        pd.read_parquet(folder / "tables" / "curves.parquet") for folder in (tmp_path, shift_run.folder)
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert shift.record()["findings"] == shift_run.shift.record()["findings"]


def test_other_weights_than_the_last_can_be_kept(pair, shift_run, held_out, shift_words, tmp_path):
    shift = callback(tmp_path, held_out, shift_words, rotation="off", pairs="off")
    lm = tune(pair, tmp_path, [shift])
    before = shift.record()["follow_rate"]["before"]
    start = sl.load(str(pair[0]))
    shift.conclude(LM(plain_model(lm.model), lm.tokenizer, lm.template, lm.identity), 4)  # the last: nothing to do
    assert shift.record()["kept"] == 4
    shift.conclude(start, 2)  # as if step 2 had been the start again
    record = shift.record()
    assert record["kept"] == 2
    assert record["follow_rate"]["before"] == record["follow_rate"]["after"] == before
    same = next(f for f in record["findings"] if f["name"] == "tuning/fixed/density_instruction")
    assert same["verdict"] == "not testable"  # nothing differs between equal weights


# Ranks


class OtherRank(Trainer):
    """What a callback sees of a trainer that is not the first rank's, or whose model is cut into parts."""

    is_global_zero, global_step, loggers, estimated_stepping_batches, strategy = False, 2, (), 4, None

    def __init__(self, strategy) -> None:
        self.strategy = strategy


class Waiting:
    waited = 0

    def barrier(self, name: str) -> None:
        self.waited += 1


def test_only_the_first_rank_looks_and_the_others_wait(held_out, shift_words, tmp_path, monkeypatch):
    shift = callback(tmp_path, held_out, shift_words)
    monkeypatch.setattr(shift.looks, "look", lambda *_: pytest.fail("another rank looked"))
    trainer, module = OtherRank(Waiting()), LightningModule()
    shift.on_train_start(trainer, module)
    shift.on_train_batch_end(trainer, module, None, None, 0)
    shift.on_train_batch_end(trainer, module, None, None, 1)  # the next micro-batch of the same step
    shift.on_train_end(trainer, module)
    assert trainer.strategy.waited == 3


def test_a_model_in_parts_is_refused_with_the_mend(held_out, shift_words, tmp_path):
    with pytest.raises(ConfigError, match="use trainer=ddp .* or callbacks=none"):
        callback(tmp_path, held_out, shift_words).setup(OtherRank(Sharded()), LightningModule(), "fit")
