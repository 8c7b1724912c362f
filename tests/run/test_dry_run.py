"""A dry run names the work of the run that follows, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from helpers.command import RECORDS, run_here
from helpers.in_process import analyze
from helpers.more_families import mixture
from helpers.tiny import tiny
from transformers import LlamaConfig

from shiftlens.attribution import Costs, Request
from shiftlens.attribution.methods import Ablation, Gradient
from shiftlens.attribution.methods.attention_weights import AttentionWeights
from shiftlens.attribution.methods.integrated import Integrated
from shiftlens.attribution.methods.lrp import Lrp
from shiftlens.attribution.methods.random_order import RandomOrder
from shiftlens.attribution.plan import forecast as forecasts
from shiftlens.attribution.plan.forecast import forecast
from shiftlens.attribution.request import Units
from shiftlens.errors import ShiftLensError
from shiftlens.run import pipeline
from shiftlens.run.dry_run import PlannedWork
from shiftlens.run.print_plan import summary

pytestmark = pytest.mark.command


@pytest.fixture
def words(pair, tmp_path):
    (tmp_path / "my.jsonl").write_text("\n".join(map(json.dumps, RECORDS)))
    return [
        f"model.base={pair[0]}", f"model.tuned={pair[1]}", "data=jsonl", "data.path=my.jsonl", "data.max_new_tokens=6",
        "paths.cache=cache", "hydra.run.dir=out", "logger=wandb", "logger.wandb.mode=offline", "dry_run=true",
    ]  # fmt: skip


@pytest.fixture
def no_weights(pair, tmp_path):
    """The pair's configuration, with nothing else or also with tokenizers."""

    def copies(*names):
        folders = [tmp_path / f"{role}_config" for role in ("base", "tuned")]
        for folder, whole in zip(folders, pair, strict=True):
            folder.mkdir()
            for name in ("config.json", *names):
                shutil.copy(whole / name, folder)
        return [f"model.base={folders[0]}", f"model.tuned={folders[1]}"]

    return copies


def test_it_prints_a_plan_and_writes_nothing_but_hydras_own(words, tmp_path):
    done = run_here(*words, "callbacks=evidence", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = {
        tuple(cell.strip() for cell in line.strip("│").split("│"))[:4] for line in lines if line.startswith("│")
    }
    for role in ("base", "tuned"):
        for method in ("gradient x embedding", "exact removal (zero embedding)"):
            assert (role, "density", method, "3") in rows
    assert ("base", "TokenShift", "reading only", "3") in rows
    assert "Assumed: own responses count as 6 tokens (data.max_new_tokens)." in lines
    assert re.match(r"Dry run: \d+ explanations", lines[-1]) and "not measured on this machine" in lines[-1]
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {".hydra", "analyze.log"}
    assert not (tmp_path / "cache").exists() and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("tokenizers", [True, False])
def test_models_known_by_their_configuration_have_the_same_plan(words, no_weights, tokenizers, tmp_path):
    want = run_here(*words, cwd=tmp_path)
    folders = no_weights(
        *(["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] if tokenizers else [])
    )
    done = run_here(*words, *folders, "data.max_tokens=40", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if tokenizers:
        assert done.stdout == want.stdout
    else:
        told = "base_config and tuned_config: no tokenizer here, so every prompt counts as 40 tokens (data.max_tokens)"
        assert told in done.stdout
    refused = run_here(*words, *folders, "dry_run=false", cwd=tmp_path)
    assert refused.returncode == 1 and "no *.safetensors" in refused.stderr


def test_a_model_in_the_hub_cache_may_lack_its_weights(words, pair, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub" / "models--some--model"
    snapshot = model / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0" * 40)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pair[0] / name, snapshot)
    done = run_here(*words, "model.base=some/model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Dry run: 12 explanations" in done.stdout


def test_faults_are_told_as_always(words, tmp_path):
    done = run_here(*words, "saliency.b=99", "report.maps=0", cwd=tmp_path)
    assert done.returncode == 1 and "Dry run" not in done.stdout
    assert [line.split("=")[0] for line in done.stderr.strip().removeprefix("Error: ").splitlines()] == [
        "saliency.b", "report.maps",
    ]  # fmt: skip
    (tmp_path / "my.jsonl").write_text(json.dumps({"text": "words " * 300}))
    done = run_here(*words, cwd=tmp_path)
    assert done.returncode == 1 and "data.on_long=cut" in done.stderr
    done = run_here("dry_run=maybe", cwd=tmp_path)
    assert done.returncode == 1 and "dry_run=maybe: expected true or false" in done.stderr


@pytest.mark.parametrize("responses", ["own", "both"])
def test_the_plan_is_what_the_run_explains(pair, responses, tmp_path, monkeypatch):
    """The same number of samples of each method as reach the ledger when responses are as long as they may be."""
    explained = {}
    whole, gather = pipeline.Runner.rows, pipeline._gather

    def rows(self, name, role, requests):
        for request in requests:
            method = request.method.words if request.prompt_index or request.sets else "reading only"
            explained.setdefault((name, method), set()).add(request.key)
        return whole(self, name, role, requests)

    def gather_only(*args):
        gather(*args)
        raise ShiftLensError("all rows are there")

    monkeypatch.setattr(pipeline.Runner, "rows", rows)
    monkeypatch.setattr(pipeline, "_gather", gather_only)
    options = ["callbacks=evidence", f"data.responses={responses}", "callbacks.faithfulness.n=2"]
    with pytest.raises(ShiftLensError, match="all rows are there"):
        analyze(tmp_path, pair, *options)
    planned = {}

    def keep(plan, assumed, console):
        for each in plan:
            key = each.role, each.method
            planned[key] = planned.get(key, 0) + each.work.samples

    monkeypatch.setattr("shiftlens.run.print_plan.print_plan", keep)
    done = run_here(
        f"model.base={pair[0]}", f"model.tuned={pair[1]}", "data=jsonl", "data.path=prompts.jsonl",
        "data.max_new_tokens=6", "paths.cache=cache", "dry_run=true", *options, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert planned == {key: len(keys) for key, keys in explained.items()}


def request(prompt, response, **more):
    return Request("", tuple(range(prompt + 2)), tuple(range(1, prompt + 1)), (1,) * response, 9, (), **more)


def test_rows_and_operations_are_counted_as_the_formulas_say():
    model, costs = tiny("llama", torch.float32), Costs(2.0, 3.0)
    N, M, total = 5, 4, 11
    gradient = forecast([request(N, M)], model, costs)
    # Every tangent and every cotangent of each possible cut, one by one.
    cuts = [
        sum(1 for s in range(1, N + 1) for at in range(total - 1) if s <= at < cut)
        + sum(1 for y in range(total - M, total) for at in range(total) if cut <= at < y)
        for cut in range(total)
    ]
    assert gradient.rows == min(cuts)
    layers = sum(
        p.numel() for name, p in model.named_parameters() if "layers" in name or name == "model.norm.weight"
    )
    head = model.lm_head.weight.numel()
    assert gradient.operations == 2 * (layers * (gradient.rows + total) + head * 2 * M)
    removal = forecast([request(N, M, method=Ablation())], model, costs)
    assert removal.rows == sum(total - 1 - s for s in range(1, N + 1))
    assert removal.operations == 2 * (layers * (removal.rows + total) + head * (N + 1) * M)
    assert removal.relative == removal.operations / gradient.operations
    by_word = forecast([request(N, M, method=Ablation(), units=Units("word", (0, 0, 1, 1, 1)))], model, costs)
    assert by_word.rows == (total - 1 - 1) + (total - 1 - 3)
    assert forecast([request(N, M, units=Units("word", (0, 0, 1, 1, 1)))], model, costs).rows == gradient.rows
    sets = forecast([request(N, M, method=Ablation(), sets=((1, 2), (2, 4, 5)))], model, costs)
    assert sets.rows == by_word.rows + 1 and sets.prompt_tokens == 4
    everything = forecast([request(N, M, method=Ablation(), outside=(0, 6))], model, costs)
    assert everything.rows == removal.rows + (total - 1) + (total - 1 - 6)
    assert gradient.seconds is None


def test_other_methods_say_what_they_cost():
    model, costs = tiny("llama", torch.float32), Costs(1.0, 1.0)
    gradient, lrp, points, attention, random = (
        forecast([request(5, 4, method=method)], model, costs)
        for method in (Gradient(), Lrp(), Integrated(3), AttentionWeights(), RandomOrder())
    )
    assert lrp == gradient
    # A gradient with its ordinary pass for each point, a pass at either end of the path.
    ordinary = replace(request(5, 4), prompt_index=())
    once = forecast([ordinary], model, costs).operations
    assert attention.operations == random.operations == once
    assert points.operations == 3 * gradient.operations + 2 * once


def test_time_is_that_of_the_best_cut_by_measured_costs():
    model, costs = tiny("llama", torch.float32), Costs(1e-3, 1e-3, measured_at="2020-01-01T00:00:00+00:00")
    gradient = forecast([request(5, 4), request(3, 2)], model, costs)
    assert gradient.seconds == pytest.approx(gradient.rows * 1e-3)
    removal = forecast([request(5, 4, method=Ablation())], model, costs)
    assert removal.seconds == pytest.approx(removal.relative * forecast([request(5, 4)], model, costs).seconds)
    assert "on this machine, by its measured costs" in summary([PlannedWork("base", "density", "m", gradient)])


def test_of_the_experts_of_a_mixture_those_chosen_count():
    model = mixture("mixtral")
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    rest = sum(p.numel() for p in model.model.parameters()) - experts - model.model.embed_tokens.weight.numel()
    assert forecasts._parameters(model) == rest + experts // 2


def test_a_seven_billion_model_is_planned_in_no_memory():
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000
    )
    with torch.device("meta"):
        model = type(tiny("llama"))(config).to(torch.bfloat16)
    work = forecast([request(30, 300)], model, Costs(1.0, 1.0))
    assert work.rows == 30 * 301  # a template token follows the prompt
    assert 6.4e9 < forecasts._parameters(model) < 6.5e9 and 13.4e9 < work.memory < 20e9
