"""The ledger: what is written is read back, never mixed, and survives kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.ledger_rows import MODEL, row

from shiftlens.attribution import Ledger, row_key
from shiftlens.models import Identity


def test_rows_come_back_as_written(tmp_path):
    ledger = Ledger(tmp_path, MODEL)
    rows = [row("a"), row("b", 5, 0), row("c", 1, 7)]
    ledger.append(rows[:2])
    ledger.append(rows[2:])
    assert ledger.missing(["c", "x", "a", "x"]) == ["x"]
    back = Ledger(tmp_path, MODEL).read(["a", "b", "c", "x"])
    assert sorted(back) == ["a", "b", "c"]
    for want in rows:
        got = back[want.key]
        for field in ("input_ids", "prompt_index", "values", "log_probability", "rank"):
            np.testing.assert_array_equal(getattr(got, field), getattr(want, field))
        np.testing.assert_array_equal(got.importance(), want.values * np.exp(want.log_probability))
        np.testing.assert_array_equal(replace(got, target="logit_difference").importance(), want.values)
        assert (got.response, got.finished, got.engine) == (want.response, want.finished, want.engine)


def test_models_do_not_mix(tmp_path):
    Ledger(tmp_path, MODEL).append([row("a")])
    for other in (Identity("m", "f01", "", "float32"), Identity("m", "f00", "", "bfloat16")):
        assert Ledger(tmp_path, other).missing(["a"]) == ["a"]


def test_every_part_of_a_key_counts():
    base = dict(identity=MODEL, input_ids=[1, 2, 3], prompt_index=[1], response={"greedy": 5}, settings={"t": "p"})
    changed = [
        dict(base, identity=Identity("m", "f01", "", "float32")),
        dict(base, input_ids=[1, 2, 4]),
        dict(base, prompt_index=[2]),
        dict(base, response={"greedy": 6}),
        dict(base, response=[4, 5]),
        dict(base, settings={"t": "logp"}),
    ]
    keys = {row_key(**parts) for parts in [base, *changed]}
    assert len(keys) == 7
    assert row_key(**base) in keys


def test_a_broken_shard_is_a_miss_not_a_crash(tmp_path, caplog):
    ledger = Ledger(tmp_path, MODEL)
    ledger.append([row("a")])
    (ledger.folder / "broken.parquet").write_bytes(b"PAR1 not really")
    assert ledger.missing(["a", "b"]) == ["b"]
    assert "broken.parquet is damaged" in caplog.text and "computed again" in caplog.text
    assert [path.name for path in (ledger.folder / "damaged").iterdir()] == ["broken.parquet"]
    caplog.clear()
    assert Ledger(tmp_path, MODEL).missing(["a"]) == []
    assert not caplog.text  # said once


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path, MODEL)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        ledger.append([row("a")])
    assert not list(ledger.folder.iterdir())


def test_killed_while_writing_keeps_every_row_that_was_acknowledged(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.ledger_rows import MODEL, row
from shiftlens.attribution import Ledger
ledger = Ledger({str(tmp_path)!r}, MODEL)
for i in range(10_000):
    ledger.append([row(str(i), 30, 40)])
    print(i, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(20)]
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.read().split()
    process.wait()
    assert Ledger(tmp_path, MODEL).missing(acknowledged) == []
    assert len(Ledger(tmp_path, MODEL).read(acknowledged)) == len(acknowledged)
