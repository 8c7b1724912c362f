"""From nothing to a compared pair: `pretrain` by itself, then both commands as a user types them."""

from __future__ import annotations

import io
import json
import shutil

import pandas as pd
import pytest
import torch
from helpers.command import run, run_here
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from shiftlens.errors import ConfigError
from shiftlens.scratch import pretrain, pretrain_options
from shiftlens.scratch.pretrain import prepare, read_corpus
from shiftlens.scratch.tokenizer import make_tokenizer

pytestmark = pytest.mark.command

PARAGRAPHS = [f"The {a} {b} sees a {c} every day, and says so." for a in ("old", "young", "red") for b, c in
              (("cat", "dog"), ("dog", "bird"), ("bird", "cat"), ("fox", "hen"))]  # fmt: skip
TRAINER = {"accelerator": "cpu", "devices": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four files of three paragraphs."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(4):
        (folder / f"{number}.txt").write_text("\n\n".join(PARAGRAPHS[3 * number : 3 * number + 3]))
    return [str(folder / f"{number}.txt") for number in range(4)]


@pytest.fixture(scope="module")
def settings(files):
    return {
        "text": {"files": files},
        "model": {"vocabulary": 300, "width": 16, "layers": 2, "heads": 2, "kv_heads": 1, "feed_forward": 24},
        "block": 24,
        "held_out": 0.2,
        "training": {
            "steps": 12, "batch": 4, "rate": 0.01, "warmup": 0.0, "weight_decay": 0.1, "validate_every": 4, "keep": "last",
        },
    }  # fmt: skip


def call(settings, folder, seed=0, loggers=()):
    told = io.StringIO()
    base = pretrain(settings, folder, TRAINER, loggers, Console(file=told, width=200), seed)
    return base, told.getvalue()


@pytest.fixture(scope="module")
def made(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    base, told = call(settings, folder, loggers=[CSVLogger(folder, name="csv", version="")])
    return base, told


def test_the_folder_holds_the_model_that_the_record_tells_of(made, settings):
    base, _ = made
    record = json.loads((base / "record.json").read_text())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    # The held-out loss once more: the library's own loss of the saved folder over the same blocks.
    options = pretrain_options(settings, seed=0)
    held_out = prepare(read_corpus(options.text), tokenizer, options, seed=0).held_out
    ids = torch.tensor([block.ids for block in held_out])
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    (first, before), *_, (last, after) = record["result"]["held_out_loss"]
    assert (first, last) == (0, 12)
    assert after == pytest.approx(loss, rel=1e-5)
    assert after < before - 0.3
    assert record["text"]["characters"] == sum(len(p) for p in PARAGRAPHS) + 4 * 2
    assert set(record["text"]["sources"]) == set(settings["text"]["files"])
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id


def test_its_curves_have_names_of_their_own(made):
    curves = pd.read_csv(made[0].parent / "csv" / "metrics.csv")
    assert {"pretrain/train/loss", "pretrain/held_out/loss"} <= set(curves.columns)
    assert not {"train/loss", "held_out/loss"} & set(curves.columns)
    assert curves["pretrain/train/loss"].count() == 12


def test_what_is_complete_is_left_alone_and_what_is_not_goes_on(made, settings, tmp_path):
    base, told = made
    assert "12 steps" in told
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    again, told = call(settings, base.parent)
    assert "is complete" in told and "steps" not in told
    assert {path.name: path.read_bytes() for path in again.iterdir()} == files
    # Without its record a folder is not complete; its checkpoint has the last step, so nothing is trained anew.
    shutil.copytree(base.parent, tmp_path / "run")
    (tmp_path / "run" / "base" / "record.json").unlink()
    resumed, told = call(settings, tmp_path / "run")
    assert "going on from" in told
    assert (resumed / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_folder_of_other_settings_is_refused(made, settings):
    with pytest.raises(ConfigError, match=r"other settings \(pretrain.repeats,"):
        call({**settings, "repeats": 0.1}, made[0].parent)
    with pytest.raises(ConfigError, match="pretrain.training, or the seed"):
        call(settings, made[0].parent, seed=1)


def test_too_little_text_is_told_with_numbers(settings):
    options = pretrain_options({**settings, "block": 512}, seed=0)
    corpus = read_corpus(options.text)
    tokenizer = make_tokenizer(corpus.documents, 300, 512)
    with pytest.raises(ConfigError, match=r"0 to hold out.*use more text"):
        prepare(corpus, tokenizer, options, seed=0)


@pytest.fixture(scope="module")
def command(files, settings):
    """Words of the command line that say the settings above, a short tuning and few prompts."""
    model = [f"pretrain.model.{key}={value}" for key, value in settings["model"].items()]
    training = [f"pretrain.training.{key}={value}" for key, value in settings["training"].items()]
    return [
        "experiment=from_scratch", f"pretrain.text.files=[{','.join(files)}]", "pretrain.block=24",
        "pretrain.held_out=0.2", *model, *training, "tune.steps=4", "tune.validate_every=2", "data.limit=6",
        "held_out.limit=3", "hydra.run.dir=out", "trainer.accelerator=cpu",
    ]  # fmt: skip


def test_both_commands_from_nothing_to_a_report(command, made, tmp_path):
    done = run(*command, cwd=tmp_path, script="train.py")
    assert done.returncode == 0, done.stderr
    base, tuned = tmp_path / "out" / "base", tmp_path / "out" / "tuned"
    # The same settings give the same base, in another process.
    assert (base / "model.safetensors").read_bytes() == (made[0] / "model.safetensors").read_bytes()
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tuned))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)

    next_line = done.stdout.rstrip().splitlines()[-1]
    assert next_line == "next: python analyze.py model.base=out/base model.tuned=out/tuned"
    words = next_line.removeprefix("next: python analyze.py ").split()
    compared = run_here(
        *words, "data.limit=2", "data.max_new_tokens=4", "logger=none", "hydra.run.dir=compared", cwd=tmp_path
    )
    assert compared.returncode == 0, compared.stderr
    assert (tmp_path / "compared" / "report.html").stat().st_size > 10_000
    samples = pd.read_parquet(tmp_path / "compared" / "tables" / "samples.parquet")
    assert sorted(samples["role"]) == ["base", "base", "tuned", "tuned"]

    again = run_here(*command, cwd=tmp_path, script="train.py")
    assert again.returncode == 0, again.stderr
    assert "is complete" in again.stdout
    now = load_file(tuned / "model.safetensors")
    assert all(torch.equal(now[name], after[name]) for name in after)
