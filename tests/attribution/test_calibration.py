"""Costs are measured once, kept with their time, and never kept where the clock tells what no engine takes."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from helpers.tiny import tiny

from shiftlens.attribution import Costs, calibrated
from shiftlens.attribution.modes.forward import forward
from shiftlens.attribution.plan import calibration
from shiftlens.attribution.plan.calibration import known_costs
from shiftlens.attribution.plan.cost import UNMEASURED
from shiftlens.attribution.plan.row_counts import token_rows

pytestmark = pytest.mark.quick

TRUE = Costs(forward_row=2e-3, reverse_row=3e-3, forward_fixed=0.01, reverse_fixed=0.02)


@pytest.fixture
def model():
    return tiny("llama", torch.float32).requires_grad_(False)


def true_time(mode, total):
    """Time of a run whose time is exactly a line in its rows."""
    third = total // 3
    rows = token_rows(mode, range(third, 2 * third), total, third, written_out=True)
    return getattr(TRUE, f"{mode}_fixed") + getattr(TRUE, f"{mode}_row") * rows


@pytest.fixture
def clock(monkeypatch):
    """A clock that gives the true times, changed by a function of mode, total and the number of the reading."""

    def start(change=lambda mode, total, reading: 1.0):
        readings = []

        def seconds(model, run):
            mode, total = "forward" if run.func is forward else "reverse", len(run.args[1])
            readings.append((mode, total))
            return true_time(mode, total) * change(mode, total, len(readings) - 1)

        monkeypatch.setattr(calibration, "_seconds", seconds)
        return readings

    return start


def stored(folder):
    return list((folder / "calibration").glob("*.json"))


def assert_true(costs):
    for name in ("forward_row", "reverse_row", "forward_fixed", "reverse_fixed"):
        assert getattr(costs, name) == pytest.approx(getattr(TRUE, name), rel=1e-9)


def test_costs_are_measured_once_and_kept_with_their_time(model, clock, tmp_path):
    readings = clock()
    costs = calibrated(model, tmp_path)
    assert_true(costs)
    assert datetime.now(UTC) - datetime.fromisoformat(costs.measured_at) < timedelta(minutes=1)
    # In turn: no engine and no text has all its readings in one stretch of time.
    assert readings[:4] * 3 == readings and len(set(readings[:4])) == 4
    assert calibrated(model, tmp_path) == costs and len(readings) == 12
    assert known_costs(model, torch.device("cpu"), tmp_path) == costs
    assert known_costs(tiny("gpt2", torch.float32), torch.device("cpu"), tmp_path) == UNMEASURED


def test_a_model_without_weights_finds_the_costs_of_its_shape(model, clock, tmp_path):
    clock()
    costs = calibrated(model, tmp_path)
    with torch.device("meta"):
        empty = type(model)(model.config).to(torch.float32)
    assert known_costs(empty, torch.device("cpu"), tmp_path) == costs


def test_one_disturbance_changes_nothing(model, clock, tmp_path):
    for reading in range(12):
        clock(lambda mode, total, at, one=reading: 9.0 if at == one else 1.0)
        assert_true(calibrated(model, tmp_path / str(reading)))


def test_what_slows_everything_keeps_the_ratio(model, clock, tmp_path):
    clock(lambda *_: 2.5)
    costs = calibrated(model, tmp_path)
    assert costs.forward_row / costs.reverse_row == pytest.approx(TRUE.forward_row / TRUE.reverse_row)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda mode, total, _: 4.6 if mode == "reverse" else 1.0, "2 ms in forward mode and 13.8 ms in reverse"),
        (lambda mode, total, _: 6.0 if mode == "forward" else 1.0, "12 ms in forward mode and 3 ms in reverse"),
        # The small text took longer than the large one.
        (lambda mode, total, _: 20.0 if (mode, total) == ("forward", 24) else 1.0, "in forward mode a text of 24"),
        (lambda *_: 0.0, "in forward mode a text of 24 tokens took 0 s"),
    ],
)
def test_implausible_times_are_told_and_measured_again_next_time(model, clock, change, told, tmp_path, caplog):
    clock(change)
    with caplog.at_level(logging.WARNING):
        assert calibrated(model, tmp_path) == UNMEASURED
    assert caplog.text.count(told) == 1 and "the next run measures again" in caplog.text
    assert stored(tmp_path) == []
    clock()
    assert_true(calibrated(model, tmp_path))
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        json.dumps({"forward_row": 0.48, "reverse_row": 2.2, "measured": True}),
        json.dumps({"forward_row": 0.48, "reverse_row": 2.2}),
        json.dumps({"forward_row": 0.48, "reverse_row": 2.2, "measured_at": "yesterday"}),
    ],
)
def test_files_without_a_time_are_measured_again(model, clock, damage, tmp_path):
    clock()
    calibrated(model, tmp_path)
    (file,) = stored(tmp_path)
    file.write_text(damage)
    assert_true(calibrated(model, tmp_path))
    assert json.loads(file.read_text())["measured_at"]


def test_the_record_has_values_and_age():
    day = datetime.now(UTC) - timedelta(days=3, hours=12)
    record = Costs(1.0, 2.0, measured_at=day.isoformat()).record()
    assert record == {
        "forward_row": 1.0, "reverse_row": 2.0, "forward_fixed": 0.0, "reverse_fixed": 0.0,
        "measured_at": day.isoformat(), "age_days": 3.5,
    }  # fmt: skip
    assert UNMEASURED.record()["age_days"] is None


def test_the_engines_can_be_timed(model):
    """With the clock of this machine; how long anything took is not judged."""
    for (mode, total), run in {
        (m, t): calibration._run(model, m, t) for m in calibration._MODES for t in (24, 72)
    }.items():
        assert calibration._seconds(model, run) > 0
        values, _ = run()
        assert values.shape == (total // 3, total // 3) and np.isfinite(values).all(), mode
