"""Compares AttnLRP with the public implementation of its authors, lxt, on tiny random models.

lxt needs an older transformers, so it runs in an environment of its own, on the same weights:

    python -m venv .venv-lxt && .venv-lxt/bin/pip install -r benchmarks/requirements-lxt.txt
    python benchmarks/lrp_parity.py --lxt-python .venv-lxt/bin/python

lxt (its efficient mode) takes one backward pass per response token. ShiftLens runs in all its modes. Prints the
largest difference in each column, as a share of the column's largest relevance; exits with 1 above 1e-6.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3")
TOTAL, RESPONSE, LIMIT = 24, 7, 1e-6
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0, "tie_word_embeddings": False, "sliding_window": 64,
}  # fmt: skip


def named(family: str) -> tuple[str, str]:
    """Return the stem of a family's class names and its module."""
    stem = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3": "Gemma3"}[family]
    return stem, f"transformers.models.{family}"


def model_of(family: str, weights: dict[str, torch.Tensor] | None = None, eager: bool = False) -> Any:
    """Make the model, in float64; from given weights, or from random ones where nothing is 0 or 1."""
    stem, module = named(family)
    config = getattr(importlib.import_module(module), f"{stem}{'Text' if family == 'gemma3' else ''}Config")
    sizes = {key: value for key, value in SIZES.items() if (family, key) != ("qwen2", "head_dim")}
    config = config(**sizes)
    if eager:
        config._attn_implementation = "eager"
    torch.manual_seed(0)
    make = getattr(importlib.import_module(f"{module}.modeling_{family}"), f"{stem}ForCausalLM")
    model = make(config).double().eval().requires_grad_(False)
    if weights is not None:
        model.load_state_dict(weights)
        return model
    for parameter in model.parameters():
        parameter.add_((0.3 if parameter.ndim == 1 else 0.2) * torch.randn_like(parameter))
    return model


def lxt_relevances(folder: Path) -> None:
    """Compute the relevances of every family with lxt; runs in its environment.

    Args:
        folder: Holds the weights, and gets the relevances.
    """
    from lxt.efficient import monkey_patch

    ids = torch.tensor(json.loads((folder / "ids.json").read_text()))
    for family in FAMILIES:
        monkey_patch(importlib.import_module(f"{named(family)[1]}.modeling_{family}"))
        model = model_of(family, load_file(folder / f"{family}.safetensors"), eager=True)
        columns = []
        for position in range(TOTAL - RESPONSE, TOTAL):
            embeddings = model.get_input_embeddings()(ids[None, :position]).detach().requires_grad_()
            logits = model(inputs_embeds=embeddings, use_cache=False).logits[0, -1]
            others = logits.detach().index_fill(0, ids[position], -torch.inf)
            (logits[ids[position]] - logits[others.argmax()]).backward()
            columns.append((embeddings * embeddings.grad).sum(-1)[0, : TOTAL - RESPONSE].detach())
        np.save(folder / f"{family}.npy", torch.stack(columns, 1).numpy())


def main() -> int:
    """Compare all families; return 1 if one of them differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lxt-python", type=Path, help="Python of an environment with lxt")
    parser.add_argument("--lxt-folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lxt_folder:
        lxt_relevances(options.lxt_folder)
        return 0
    if not options.lxt_python:
        parser.error("give --lxt-python")
    from shiftlens.attribution import Engine
    from shiftlens.attribution.methods import Lrp

    ids = np.random.default_rng(0).integers(3, SIZES["vocab_size"], TOTAL).tolist()
    models = {family: model_of(family) for family in FAMILIES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ids.json").write_text(json.dumps(ids))
        for family, model in models.items():
            save_file(model.state_dict(), folder / f"{family}.safetensors")
        subprocess.run([options.lxt_python, __file__, "--lxt-folder", name], check=True)
        wanted = {family: np.load(folder / f"{family}.npy") for family in FAMILIES}
    worst = 0.0
    for family, model in models.items():
        for mode in ("naive", "reverse", "forward", "mixed"):
            engine = Engine(mode, target="logit_difference")
            values = Lrp().explain(model, ids, range(TOTAL - RESPONSE), RESPONSE, engine).values.numpy()
            error = (np.abs(values - wanted[family]).max(0) / np.abs(wanted[family]).max(0)).max()
            print(f"{family:8} {mode:8} {error:.1e}")
            worst = max(worst, error)
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
