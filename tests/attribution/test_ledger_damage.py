"""Whatever happens to a shard: its rows come back as written, or are missing; never other numbers, never a traceback."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.ledger_rows import MODEL, row

from shiftlens.attribution import Ledger, Request
from shiftlens.attribution.methods import Ablation
from shiftlens.attribution.row import answers

ROWS = [row(f"key-{n}", 3 + n % 3, 4 + n % 5) for n in range(6)]
KEYS = [r.key for r in ROWS]
ARRAYS = ("input_ids", "prompt_index", "values", "log_probability", "rank")


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS) and (
        (a.response, a.finished, a.engine, a.method, a.unit)
        == (b.response, b.finished, b.engine, b.method, b.unit)
    )


def request(r) -> Request:
    fed = r.input_ids.tolist()
    M = len(r.log_probability)
    return Request(r.key, tuple(fed[:-M]), tuple(r.prompt_index.tolist()), None, M, ())


def shard_of(ledger: Ledger):
    (shard,) = ledger.folder.glob("*.parquet")
    return shard


def check(root) -> int:
    """Number of rows that are missing; those that are there are as written."""
    back = Ledger(root, MODEL).read(KEYS)
    assert all(same(back[r.key], r) for r in ROWS if r.key in back)
    assert Ledger(root, MODEL).missing(KEYS) == [key for key in KEYS if key not in back]
    return len(KEYS) - len(back)


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    ledger = Ledger(tmp_path / "whole", MODEL)
    ledger.append(ROWS)
    shard = shard_of(ledger)
    data = shard.read_bytes()
    rng = np.random.default_rng(0)
    places = {*rng.integers(len(data), size=250).tolist(), *range(8), *range(len(data) - 40, len(data))}
    for place in places:
        root = tmp_path / "flipped"
        target = root / MODEL.hash / shard.name
        target.parent.mkdir(parents=True)
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        target.write_bytes(changed)
        assert check(root) == len(KEYS), place
        shutil.rmtree(root)


@pytest.mark.parametrize("damage", ["empty", "half", "zeros", "swapped", "text"])
def test_other_damages(damage, tmp_path, caplog):
    ledger = Ledger(tmp_path, MODEL)
    ledger.append(ROWS[:3])
    first = shard_of(ledger)
    ledger.append(ROWS[3:])
    (second,) = set(ledger.folder.glob("*.parquet")) - {first}
    data = first.read_bytes()
    first.write_bytes({
        "empty": b"", "half": data[: len(data) // 2], "zeros": bytes(len(data)), "swapped": second.read_bytes(),
        "text": b"not a parquet file",
    }[damage])  # fmt: skip
    assert check(tmp_path) == 3
    assert caplog.text.count("is set aside") == 1
    Ledger(tmp_path, MODEL).append(ROWS[:3])  # computed again
    assert check(tmp_path) == 0


def test_shards_of_earlier_versions_stay_readable(tmp_path):
    ledger = Ledger(tmp_path, MODEL)
    ledger.append([replace(ROWS[0], engine="ablation"), *ROWS[1:]])
    shard = shard_of(ledger)
    table = pq.read_table(shard)
    table = table.rename_columns(["gradient" if name == "values" else name for name in table.column_names])
    table = table.drop_columns(["method", "unit", "form", "target", "unit_of", "residual"])
    shard.unlink()
    pq.write_table(table, ledger.folder / "0123456789abcdef0123456789abcdef.parquet")
    back = Ledger(tmp_path, MODEL).read(KEYS)
    assert [back[key].method for key in KEYS[:2]] == ["ablation", "gradient"]
    assert same(back[KEYS[1]], ROWS[1])


def rewrite(ledger: Ledger, change) -> None:
    """Rows changed by somebody who writes a valid shard with a valid name."""
    shard = shard_of(ledger)
    records = pq.read_table(shard).to_pylist()
    shard.unlink()
    change(records)
    import pyarrow as pa

    path = ledger.folder / "new.parquet"
    pq.write_table(pa.Table.from_pylist(records), path)
    path.rename(ledger.folder / f"f00-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.parquet")


def swap_keys(records):
    records[0]["key"], records[1]["key"] = records[1]["key"], records[0]["key"]


def longer_values(records):
    records[0]["values"].append(1.0)


def not_finite(records):
    records[0]["log_probability"][0] = float("nan")


def no_rank(records):
    records[0]["rank"] = None


def other_prompt(records):
    records[0]["prompt_index"] = [i + 1 for i in records[0]["prompt_index"]]


def other_ids(records):
    records[0]["input_ids"][0] += 1


@pytest.mark.parametrize("change", [swap_keys, longer_values, not_finite, no_rank, other_prompt, other_ids])
def test_a_row_that_does_not_answer_its_request_is_missing(change, tmp_path):
    ledger = Ledger(tmp_path, MODEL)
    ledger.append(ROWS)
    requests = {r.key: request(r) for r in ROWS}
    assert ledger.missing(requests) == []
    rewrite(ledger, change)
    wrong = 2 if change is swap_keys else 1
    assert Ledger(tmp_path, MODEL).missing(requests) == KEYS[:wrong]
    Ledger(tmp_path, MODEL).append(ROWS[:wrong])  # computed again: the sound one of two rows with one key is taken
    back = Ledger(tmp_path, MODEL).read(requests)
    assert all(same(back[r.key], r) for r in ROWS)


def test_what_a_row_has_to_answer():
    asked = request(ROWS[0])
    assert answers(ROWS[0], asked)
    given = tuple(ROWS[0].response_ids.tolist())
    assert answers(ROWS[0], replace(asked, response_ids=given))
    for change in (
        {"response_ids": (*given[:-1], 99)}, {"max_new_tokens": len(given) - 1}, {"method": Ablation()},
        {"include_response": True}, {"input_ids": asked.input_ids[:-1]},
    ):  # fmt: skip
        assert not answers(ROWS[0], replace(asked, **change)), change


def test_a_ledger_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch, caplog):
    ledger = Ledger(tmp_path, MODEL)
    ledger.append(ROWS)
    (ledger.folder / "broken.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
    assert Ledger(tmp_path, MODEL).missing(KEYS) == []
    assert "broken.parquet is damaged" in caplog.text


@pytest.mark.parametrize("names", [("0" * 32, "f" * 32), ("f" * 32, "0" * 32)])
def test_a_row_that_does_not_answer_hides_no_other_whichever_shard_comes_first(names, tmp_path, monkeypatch):
    wrong, asked = replace(ROWS[0], input_ids=ROWS[0].input_ids + 1), {ROWS[0].key: request(ROWS[0])}
    ledger = Ledger(tmp_path, MODEL)
    for name, stored in zip(names, (wrong, ROWS[0]), strict=True):
        monkeypatch.setattr("shiftlens.attribution.ledger.uuid.uuid4", lambda name=name: SimpleNamespace(hex=name))
        assert ledger.missing(asked) == KEYS[:1]
        ledger.append([stored])
    assert ledger.missing(asked) == Ledger(tmp_path, MODEL).missing(asked) == []
    assert same(ledger.read(asked)[ROWS[0].key], ROWS[0])


def test_a_damaged_footer_of_an_earlier_version_is_an_error_and_no_wait_without_end(tmp_path):
    """pyarrow's reader with filters waits for ever where the type of the column of keys is damaged."""
    ledger = Ledger(tmp_path, MODEL)
    ledger.append(ROWS)
    data = bytearray(shard_of(ledger).read_bytes())
    shard_of(ledger).unlink()
    kind = data.index(b"\x26\x00\x1c\x15\x0c\x19", len(data) - 8 - int.from_bytes(data[-8:-4], "little")) + 4
    for bit in range(8):
        data[kind] ^= 1 << bit
        (ledger.folder / f"{bit:032}.parquet").write_bytes(data)
        data[kind] ^= 1 << bit
    answers_given = []
    reader = Thread(target=lambda: answers_given.append(Ledger(tmp_path, MODEL).missing(["key-0"])), daemon=True)
    reader.start()
    reader.join(60)  # pyarrow waits without holding the interpreter
    assert len(answers_given) == 1


def test_a_damaged_shard_that_cannot_be_moved_is_reported_once(tmp_path, monkeypatch, caplog):
    ledger = Ledger(tmp_path, MODEL)
    (ledger.folder / "broken.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
    for _ in range(3):
        assert Ledger(tmp_path, MODEL).missing(KEYS[:1]) == KEYS[:1]
    assert caplog.text.count("is left out") == 1 and "set aside" not in caplog.text
