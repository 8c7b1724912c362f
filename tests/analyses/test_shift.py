"""The shift measured while a tiny model is tuned: what is measured, what is kept, and that nobody is disturbed."""

from __future__ import annotations

import html
import json
import random
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.plain_shift import NEW, B, L, P, plain_look
from helpers.plain_weights import write_words
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from peft import LoraConfig, get_peft_model
from rich.console import Console
from shiftlens.report.training_page import render_training, training_charts
from torch.utils.data import DataLoader

import shiftlens as sl
from shiftlens.analyses.training import findings as training
from shiftlens.analyses.training import watches as shift_weights
from shiftlens.analyses.training.watches import ConceptWatch, PairWatch
from shiftlens.callbacks import ShiftCurves
from shiftlens.callbacks.training import undisturbed
from shiftlens.errors import ConfigError
from shiftlens.models.loading import LM
from shiftlens.scores.settings import Settings
from shiftlens.tuning.examples import Example
from shiftlens.tuning.fit import fit
from shiftlens.tuning.lora import plain_model
from shiftlens.tuning.ranks import Sharded
from shiftlens.tuning.tune_options import TuneOptions
from shiftlens.words import lexicon_from_config

RECORDS = [
    {"id": "order", "text": "Write the words in order: b a", "instruction": [[0, 24]], "context": [[26, 29]], "check": {"name": "contains", "text": "a"}},
    {"id": "grammar", "text": "Fix the grammar: me goes", "instruction": [[0, 15]], "context": [[17, 24]], "check": {"name": "words", "least": 0, "most": 99}},
    {"id": "shout", "text": "Shout, please", "instruction": [[0, 5]], "check": {"name": "uppercase"}},
    {"id": "hostile", "text": "Say </script><img src=x onerror=alert(1)>", "instruction": [[0, 3]], "check": {"name": "all", "checks": [{"name": "lowercase"}, {"name": "without", "text": "e"}]}},
    {"id": "unchecked", "text": "Translate this to French", "instruction": [[0, 24]]},
]  # fmt: skip
TUNING = TuneOptions(
    steps=4, batch=4, accumulate=2, rank=2, dropout=0.1, rate=0.02, validate_every=2, keep="last", seed=3
)
CPU = {"accelerator": "cpu", "devices": 1}


@pytest.fixture(scope="module", autouse=True)
def small_grid():
    """The correction over all settings is tested elsewhere, and costs seconds."""
    with pytest.MonkeyPatch.context() as patch:
        few = partial(training.examine, settings=[Settings(L, B, P)], permutations=99)
        patch.setattr(training, "examine", few)
        yield


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "held_out.jsonl"
    path.write_text("\n".join(map(json.dumps, RECORDS)))
    return {"name": "mine", "reader": "jsonl", "path": str(path), "max_new_tokens": NEW}


def callback(folder, held_out, words, **settings) -> ShiftCurves:
    usual = {"every": 2, "components": 6, "top_words": 5, "top": 10, "examples": 5}
    made = ShiftCurves(
        folder, held_out, {"L": L, "b": B, "p": P}, words, folder / "cache", **{**usual, **settings}
    )
    made.console = Console(quiet=True)
    return made


def dialogues(lm: LM) -> list[Example]:
    draw = torch.Generator().manual_seed(1)
    return [Example(tuple(torch.randint(3, 300, (n,), generator=draw).tolist()), 3) for n in (7, 9, 8, 12, 10, 6, 11, 9)]  # fmt: skip


def tune(pair, folder, callbacks, loggers=(), ckpt_path=None) -> LM:
    lm = sl.load(str(pair[0]))
    some = dialogues(lm)
    fit(lm, some, some[:3], TUNING, folder, CPU, callbacks, loggers, None, ckpt_path)
    return lm


@pytest.fixture(scope="module")
def run(pair, held_out, words, tmp_path_factory):
    """A tuning with looks at steps 0, 2 and 4, logged to CSV and an offline W&B run."""
    wandb = pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("run")
    loggers = [
        CSVLogger(folder, "csv"),
        WandbLogger(
            project="t", save_dir=str(folder), mode="offline", settings=wandb.Settings(x_disable_stats=True)
        ),
    ]
    shift = callback(folder, held_out, words)
    told = shift.console = Console(record=True, width=400, file=open("/dev/null", "w"))  # noqa: SIM115
    lm = tune(pair, folder, [shift], loggers)
    run_dir = Path(loggers[1].experiment.dir).parent
    wandb.finish()
    return SimpleNamespace(
        folder=folder, shift=shift, lm=lm, csv=loggers[0], wandb=run_dir, told=told.export_text()
    )


# What is measured, restated


def values_at(run, step: int) -> dict[str, float]:
    table = pd.read_parquet(run.folder / "tables" / "curves.parquet")
    rows = table[(table["step"] == step) & (table["measure"] != "loss")]
    return {
        m if g == "all" else f"{m}/{g}": v
        for m, g, v in zip(rows["measure"], rows["group"], rows["value"], strict=True)
    }


def merged(lm):
    import copy

    return copy.deepcopy(lm.model).merge_and_unload().eval()


def test_curves_are_the_scores_of_the_model_at_that_step(pair, run, held_out):
    start = sl.load(str(pair[0]))
    first, responses = plain_look(start.model, start, held_out)
    last, others = plain_look(merged(run.lm), start, held_out)
    fixed, _ = plain_look(merged(run.lm), start, held_out, given=responses)
    assert responses != others  # or the test could not tell the two texts apart
    found = values_at(run, 0), values_at(run, 4)
    for name, value in first.items():
        assert found[0][name] == pytest.approx(value, abs=1e-5), name
        assert found[0][f"fixed_{name}"] == found[0][name]
    for name in last:
        assert found[1][name] == pytest.approx(last[name], abs=1e-5), name
        assert found[1][f"fixed_{name}"] == pytest.approx(fixed[name], abs=1e-5), name
    assert abs(last["instruction_score"] - fixed["instruction_score"]) > 1e-3
    assert sorted(run.shift.looks.found.steps) == [0, 2, 4]  # one look for each, not one for each micro-batch


def test_follow_rates_are_those_of_the_responses(run):
    probes = pd.read_parquet(run.folder / "tables" / "probes.parquet")
    own = probes[probes["text"] == "own"]
    assert len(own) == 3 * len(RECORDS) and own["followed"].isna().sum() == 3
    for step, rows in own.groupby("step"):
        texts = dict(zip(rows["id"], rows["response"], strict=True))
        letters = [c for c in texts["hostile"] if c.isalpha()]
        expected = {
            "contains": "a" in texts["order"].lower(), "words": len(texts["grammar"].split()) <= 99,
            "lowercase+without": bool(letters) and not any(c.isupper() for c in letters) and "e" not in texts["hostile"].lower(),
        }  # fmt: skip
        for name, passed in expected.items():
            assert values_at(run, step)[f"follow_rate/{name}"] == float(passed), (step, name, texts)
        assert values_at(run, step)["follow_rate"] == pytest.approx(rows["followed"].astype(float).mean())
    change = run.shift.record()["follow_rate"]
    rates = [own[own["step"] == step]["followed"].astype(float).mean() for step in (0, 4)]
    assert [change["before"], change["after"]] == pytest.approx(rates)
    assert change["n"] == 4


def test_layers_turn_by_the_angles_between_their_principal_subspaces(pair, run):
    start, tuned = sl.load(str(pair[0])).model, merged(run.lm)
    for layer in range(2):
        spaces = []
        for model in (start, tuned):
            rows = model.model.layers[layer].mlp.down_proj.weight.detach().double().T.numpy()
            spaces.append(np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][:6])
        cosines = np.linalg.svd(spaces[0] @ spaces[1].T, compute_uv=False).clip(max=1)
        angle = np.degrees(np.arccos(cosines)).mean()
        assert angle > 1
        assert values_at(run, 4)[f"rotation_angle/{layer}"] == pytest.approx(angle, rel=1e-3)
        assert values_at(run, 0)[f"rotation_angle/{layer}"] == 0
    assert "pairs_instruction" not in values_at(run, 2)  # at the ends only
    assert values_at(run, 0)["pairs_instruction"] == values_at(run, 0)["pairs_general"] == 0


def test_what_did_not_change_is_exactly_0_and_costs_nothing(pair, words, tmp_path, monkeypatch):
    lexicon = lexicon_from_config(words, tmp_path)
    lm = sl.load(str(pair[0]))
    concepts, pairs = ConceptWatch([0, 1], 6, 5, lexicon), PairWatch([0, 1], 10, lexicon)
    concepts.look(lm), pairs.section(lm, 0)
    asked: list[list[int]] = []
    for name in ("concepts_by_layer", "pairs_by_layer"):
        original = getattr(shift_weights, name)

        def counted(lm, layers, *rest, original=original):
            asked.append(list(layers))
            return original(lm, layers, *rest)

        monkeypatch.setattr(shift_weights, name, counted)
    assert concepts.look(lm) == {0: (0.0, 1.0, 0.0), 1: (0.0, 1.0, 0.0)}
    assert (pairs.section(lm, 0).tables["head_pairs"][["gained", "lost"]] == 0).all(axis=None)
    assert asked == []
    with torch.no_grad():
        lm.model.model.layers[1].mlp.down_proj.weight[:, 0] += 1
        lm.model.model.layers[0].self_attn.q_proj.weight[0] += 1
    angle, *_ = (turned := concepts.look(lm))[1]
    changed = pairs.section(lm, 0).tables["head_pairs"]
    assert angle > 0 and turned[0] == (0.0, 1.0, 0.0)
    assert asked == [[1], [0]]
    assert (changed[changed["layer"] == 1][["gained", "lost"]] == 0).all(axis=None)
    with torch.no_grad():
        lm.model.get_output_embeddings().weight.copy_(torch.flip(lm.model.get_output_embeddings().weight, [0]))
    angle, cosine, left = concepts.look(lm)[0]  # other words, the same space
    assert (angle, cosine) == (0, 1) and left > 0
    again = ConceptWatch([0, 1], 6, 5, lexicon)
    again.restore(concepts.state())
    assert again.look(lm)[1] == concepts.look(lm)[1]


# Nobody is disturbed


class Shuffled(LightningModule):
    """A module that draws from the global generators: the order of its data, and dropout."""

    def __init__(self, lm: LM) -> None:
        super().__init__()
        self.lm_source = lm
        config = LoraConfig(r=2, lora_dropout=0.3, target_modules="all-linear", task_type="CAUSAL_LM")
        self.model = get_peft_model(lm.model, config)
        self.examples = [torch.tensor([example.ids]) for example in dialogues(lm)]

    def snapshot(self) -> LM:
        return LM(
            plain_model(self.model), self.lm_source.tokenizer, self.lm_source.template, self.lm_source.identity
        )

    def train_dataloader(self):
        return DataLoader(self.examples, batch_size=None, shuffle=True)  # type: ignore[arg-type]

    def training_step(self, ids, index):
        return self.model(input_ids=ids, labels=ids).loss * (1 + random.random() + float(np.random.rand()))

    def configure_optimizers(self):
        return torch.optim.AdamW([w for w in self.parameters() if w.requires_grad], lr=0.01)


def shuffled(pair, callbacks) -> dict[str, torch.Tensor]:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    module = Shuffled(sl.load(str(pair[0])))
    trainer = Trainer(
        **CPU, max_epochs=2, accumulate_grad_batches=2, callbacks=callbacks, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    assert trainer.global_step == 8
    return {name: weight.detach().clone() for name, weight in module.named_parameters()}


def test_training_is_the_same_with_and_without_looks(pair, held_out, words, tmp_path):
    shift = callback(tmp_path, held_out, words, every=3, rotation="off", pairs="off")
    with_looks, without = shuffled(pair, [shift]), shuffled(pair, [])
    assert sorted(shift.looks.found.steps) == [0, 3, 6, 8]
    assert with_looks.keys() == without.keys()
    for name, weight in without.items():
        assert with_looks[name].numpy().tobytes() == weight.numpy().tobytes(), name
    assert any("lora_B" in name and weight.abs().max() > 0 for name, weight in without.items())


def test_all_is_put_back_as_it_was():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(), torch.nn.Linear(2, 2))
    module[1].eval()
    module[0].weight.requires_grad_(False)

    def drawn():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    expected = drawn()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    with undisturbed(module):
        drawn()
        module.eval().requires_grad_(True)
        module[2].weight.requires_grad_(False)
    assert drawn() == expected
    assert [part.training for part in module] == [True, False, True]
    assert [weight.requires_grad for weight in module.parameters()] == [False, True, True, True]


# Nothing is lost


class Killed(Callback):
    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.global_step == 3:
            raise KeyboardInterrupt


def test_a_resumed_run_has_the_whole_curve(pair, run, held_out, words, tmp_path):
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        tune(pair, tmp_path, [callback(tmp_path, held_out, words), Killed()])
    table = pd.read_parquet(tmp_path / "tables" / "curves.parquet")
    assert sorted(table["step"].unique()) == [0, 1, 2]  # written after each look
    last = tmp_path / "checkpoints" / "last.ckpt"
    kept = torch.load(last, weights_only=True)["callbacks"]["ShiftCurves"]
    assert sorted(kept["steps"]) == [0, 2]
    with pytest.raises(ConfigError, match="of other held-out prompts"):
        tune(pair, tmp_path, [callback(tmp_path, held_out, words, probes=2)], ckpt_path=last)
    resumed = callback(tmp_path, held_out, words)
    tune(pair, tmp_path, [resumed], ckpt_path=last)
    for name in ("curves", "probes", "held_out", "rotation_layers", "head_pairs"):
        ours, theirs = (pd.read_parquet(f / "tables" / f"{name}.parquet") for f in (tmp_path, run.folder))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    ours, theirs = (shift.record() for shift in (resumed, run.shift))
    assert ours["findings"] == theirs["findings"]


def test_a_run_killed_before_its_conclusions_still_draws_them(pair, run, held_out, words, tmp_path):
    shift = callback(tmp_path, held_out, words)
    lm = tune(pair, tmp_path, [shift], ckpt_path=run.folder / "checkpoints" / "last.ckpt")  # no step is left
    shift.conclude(LM(plain_model(lm.model), lm.tokenizer, lm.template, lm.identity), 4)
    ours, theirs = (pd.read_parquet(folder / "tables" / "curves.parquet") for folder in (tmp_path, run.folder))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert shift.record()["findings"] == run.shift.record()["findings"]


def test_other_weights_than_the_last_can_be_kept(pair, run, held_out, words, tmp_path):
    shift = callback(tmp_path, held_out, words, rotation="off", pairs="off")
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


def test_only_the_first_rank_looks_and_the_others_wait(held_out, words, tmp_path, monkeypatch):
    shift = callback(tmp_path, held_out, words)
    monkeypatch.setattr(shift.looks, "look", lambda *_: pytest.fail("another rank looked"))
    trainer, module = OtherRank(Waiting()), LightningModule()
    shift.on_train_start(trainer, module)
    shift.on_train_batch_end(trainer, module, None, None, 0)
    shift.on_train_batch_end(trainer, module, None, None, 1)  # the next micro-batch of the same step
    shift.on_train_end(trainer, module)
    assert trainer.strategy.waited == 3


def test_a_model_in_parts_is_refused_with_the_mend(held_out, words, tmp_path):
    with pytest.raises(ConfigError, match="use trainer=ddp .* or callbacks=none"):
        callback(tmp_path, held_out, words).setup(OtherRank(Sharded()), LightningModule(), "fit")


# What people get


def test_loggers_get_the_curves(run):
    rows = pd.read_csv(Path(run.csv.log_dir) / "metrics.csv")
    names = {"instruction_score", "fixed_density_instruction", "follow_rate", "profile/3", "rotation_angle/1"}
    for step in (0, 2, 4):
        logged = rows[rows["step"] == step].ffill().bfill().iloc[0]
        for name in names:
            assert logged[f"during/{name}"] == pytest.approx(values_at(run, step)[name]), (step, name)
    tool = Path(sys.executable).with_name("wandb")
    command = [tool, "leet", "inspect", "--json", run.wandb]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    history = [entry for entry in map(json.loads, text.splitlines()) if entry["type"] == "history"]
    assert run_values(history, "during/instruction_score") == {
        step: pytest.approx(values_at(run, step)["instruction_score"]) for step in (0, 2, 4)
    }
    assert run_values(history, "held_out/follow_rate/after") == {
        4: pytest.approx(run.shift.record()["follow_rate"]["after"])
    }
    for part in ("charts/scores", "tables/curves", "report.html"):
        assert part in text


def run_values(history, name: str) -> dict[int, float]:
    found = {}
    for entry in history:
        items = entry["history"]["item"]
        if name in items:
            found[int(items["trainer/global_step"])] = items[name]
    return found


def test_the_report_holds_its_numbers_and_no_foreign_markup(run):
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    outside = re.sub(r"<script[ >].*?</script>", "", page, flags=re.S)
    assert "<img" not in outside and html.escape(RECORDS[3]["text"]) in outside
    assert "default-src 'none'" in page and 'http-equiv="Content-Security-Policy"' in page
    change = run.shift.record()["follow_rate"]
    assert (
        f">{100 * change['before']:.0f}%</span>" in outside and f">{100 * change['after']:.0f}%</span>" in outside
    )
    for name in ("loss", "follow", "scores", "density", "during_profile", "during_rotation", "during_pairs"):
        assert f'id="data-{name}"' in page, name
    for finding in run.shift.looks.result().findings:
        assert finding.name in outside
    assert "model.tuned=" in outside and "analyze.py" in outside
    record = json.loads((run.folder / "findings.json").read_text())
    assert record["follow_rate"]["p"] == change["p"]
    charts = training_charts(run.shift.looks.result().curves)
    line = next(trace for trace in charts["scores"].data if trace.name == "its own responses")
    assert list(line.x) == [0, 2, 4]
    assert list(line.y) == [pytest.approx(values_at(run, step)["instruction_score"]) for step in (0, 2, 4)]
    assert "bdata" not in json.dumps([figure.to_dict() for figure in charts.values()])
    assert "shift at step 2; followed" in run.told and "held-out prompts followed:" in run.told


def test_the_report_draws_in_a_browser(run):
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        pytest.skip(f"{chromium} is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(90_000)  # plotly alone takes long where several share a core
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto((run.folder / "report.html").as_uri())
        page.wait_for_selector("#figure-during_pairs .main-svg")
        assert errors == []
        assert page.locator(".figure .main-svg").count() >= 7
        browser.close()


def test_a_run_without_checks_or_weights_has_what_is_left(pair, held_out, tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text(json.dumps({"id": "a", "text": "Write it", "instruction": [[0, 8]]}))
    shift = callback(tmp_path, {**held_out, "path": str(path)}, None, rotation="off", pairs="off", density="off")
    tune(pair, tmp_path, [shift])
    assert shift.record()["follow_rate"] is None and shift.record()["findings"] == []
    assert "Nothing was tested in this run." in render_training(shift.looks.result(), "next", 2)
