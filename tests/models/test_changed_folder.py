"""A model folder that is written while a run is going on: no result is stored under the former model's name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers.in_process import analyze

import shiftlens.models.identity as identities
import shiftlens.models.loading as loading
from shiftlens.errors import SourceError
from shiftlens.models import find_layers, fingerprint, identify, load_lm, pair_from_config
from shiftlens.run import pipeline

pytestmark = pytest.mark.command

CHANGED = "changed while this run was going on: .*start the run again"


@pytest.fixture
def folders(pair: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the tiny pair: base, and the tuned model whose weights replace those of the base."""
    return tuple(Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in pair)


def in_place(source: Path, target: Path) -> None:
    with target.open("r+b") as stream:
        stream.write(source.read_bytes())


def by_rename(source: Path, target: Path) -> None:
    shutil.copyfile(source, target.with_suffix(".new"))
    target.with_suffix(".new").replace(target)


def overwrite(folders: tuple[Path, Path], write=in_place, restore_time: bool = True) -> None:
    """Put the tuned weights into the base's folder; the file keeps its size and, if wished, its time."""
    tuned, base = (folder / "model.safetensors" for folder in reversed(folders))
    before = base.stat()
    write(tuned, base)
    if restore_time:
        os.utime(base, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert base.stat().st_size == before.st_size
    assert (base.stat().st_mtime_ns == before.st_mtime_ns) == restore_time


def base_of(folders: tuple[Path, Path], cache: Path):
    spec = pair_from_config({"base": str(folders[0]), "tuned": str(folders[1])}, cache).base
    return spec, find_layers(spec, cache)


@pytest.mark.parametrize("restore_time", [False, True])
@pytest.mark.parametrize("write", [in_place, by_rename])
@pytest.mark.parametrize("settled", [True, False])
def test_weights_that_replace_the_identified_ones_are_refused(
    folders, tmp_path, monkeypatch, write, restore_time, settled
):
    if settled:
        monkeypatch.setattr(identities, "SETTLED_NS", -1)
    spec, layers = base_of(folders, tmp_path)
    identity = identify(spec, layers, tmp_path)
    overwrite(folders, write, restore_time)
    with pytest.raises(SourceError, match=f"{folders[0]} {CHANGED}"):
        load_lm(spec, layers, "none", tmp_path, identity)
    again = identify(spec, layers, tmp_path)
    assert again.hash != identity.hash
    assert load_lm(spec, layers, "none", tmp_path, again).identity == again


def test_a_tokenizer_that_replaces_the_identified_one_is_refused(folders, tmp_path):
    spec, layers = base_of(folders, tmp_path)
    identity = identify(spec, layers, tmp_path)
    file = folders[0] / "tokenizer.json"
    file.write_text(file.read_text().replace("<|user|>", "<|USER|>"))
    with pytest.raises(SourceError, match=CHANGED):
        load_lm(spec, layers, "none", tmp_path, identity)


@pytest.mark.parametrize("back", [False, True])
def test_a_change_while_the_weights_are_read_is_refused(folders, tmp_path, monkeypatch, back):
    """Also where the folder gets its former content back before the check."""
    spec, layers = base_of(folders, tmp_path)
    kept = shutil.copyfile(folders[0] / "model.safetensors", tmp_path / "kept")
    read = loading._read

    def read_then_change(*args):
        overwrite(folders)
        model = read(*args)
        if back:
            by_rename(kept, folders[0] / "model.safetensors")
        return model

    monkeypatch.setattr(loading, "_read", read_then_change)
    with pytest.raises(SourceError, match=CHANGED):
        load_lm(spec, layers, "none", tmp_path)


def test_weights_in_memory_do_not_follow_the_file(folders, tmp_path):
    """Without a conversion the library maps weights from the file, and a write in place reaches them."""
    spec, layers = base_of(folders, tmp_path)
    model = load_lm(spec, layers, "none", tmp_path).model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    overwrite(folders)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_unchanged_files_are_hashed_once_and_touched_ones_accepted(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(identities, "SETTLED_NS", -1)
    hashed: list[str] = []
    hash_file = identities.file_sha256
    monkeypatch.setattr(identities, "file_sha256", lambda path: hashed.append(path.name) or hash_file(path))
    spec, layers = base_of(folders, tmp_path)
    identity = identify(spec, layers, tmp_path)
    load_lm(spec, layers, "none", tmp_path, identity)
    load_lm(spec, layers, "none", tmp_path)
    assert len(hashed) == len(set(hashed)) > 2
    os.utime(folders[0] / "model.safetensors")
    hashed.clear()
    assert load_lm(spec, layers, "none", tmp_path, identity).identity == identity
    assert hashed == ["model.safetensors"]


@pytest.mark.parametrize("tick_ns", [1, 10**9])
def test_fingerprints_follow_writes_that_the_clock_of_the_file_system_may_not_tell_apart(
    tmp_path, monkeypatch, tick_ns
):
    stamp = identities._stamp
    monkeypatch.setattr(identities, "_stamp", lambda path: tuple(v // tick_ns * tick_ns for v in stamp(path)))
    file, prints = tmp_path / "model.safetensors", []
    for content in range(50):
        file.write_bytes(bytes([content]))
        os.utime(file, ns=(0, 0))
        prints.append(fingerprint(tmp_path, tmp_path))
    assert len(set(prints)) == len(prints)


def test_a_file_written_while_it_is_hashed_has_no_hash(folders, tmp_path, monkeypatch):
    hash_file = identities.file_sha256

    def hash_then_write(path):
        value = hash_file(path)
        if path.name == "model.safetensors":
            overwrite(folders)
        return value

    monkeypatch.setattr(identities, "file_sha256", hash_then_write)
    with pytest.raises(SourceError, match=r"model\.safetensors was written while its hash was computed"):
        fingerprint(folders[0], tmp_path)
    assert not list((tmp_path / "hashes").glob("*.part"))


def test_a_file_that_is_not_complete_is_told(folders, tmp_path):
    file = folders[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    spec, layers = base_of(folders, tmp_path)
    with pytest.raises(SourceError, match=f"{folders[0]}: cannot be loaded"):
        load_lm(spec, layers, "none", tmp_path)


def test_the_analysis_stores_no_row_of_the_new_weights_under_the_former_name(folders, tmp_path, monkeypatch):
    prepare = pipeline.prepare

    def prepare_then_change(*args):
        prepared = prepare(*args)
        overwrite(folders)
        return prepared

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "prepare", prepare_then_change)
        (tmp_path / "one").mkdir()
        with pytest.raises(SourceError, match=f"{folders[0]} {CHANGED}"):
            analyze(tmp_path / "one", folders)
    ledgers = tmp_path / "one" / "ledger"
    written = {path.relative_to(ledgers).parts[0] for path in ledgers.rglob("*.parquet")}
    assert len(written) == 1  # the tuned model, which goes first and did not change
    # The same command again gives what a first run on the new weights gives.
    (tmp_path / "two").mkdir()
    again, _ = analyze(tmp_path / "one", folders)
    first, _ = analyze(tmp_path / "two", folders)
    assert again.tables["samples"].equals(first.tables["samples"])
