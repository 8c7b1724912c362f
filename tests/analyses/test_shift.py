"""The shift measured while a tiny model is tuned: what is measured, restated, and that nobody is disturbed."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.plain_shift import plain_look
from helpers.shift_run import CPU, RECORDS, callback, dialogues, merged, values_at
from lightning.pytorch import LightningModule, Trainer
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader

import shiftlens as sl
from shiftlens.analyses.training import watches as shift_weights
from shiftlens.analyses.training.watches import ConceptWatch, PairWatch
from shiftlens.callbacks.training import undisturbed
from shiftlens.models.loading import LM
from shiftlens.tuning.lora import plain_model
from shiftlens.words import lexicon_from_config

pytestmark = pytest.mark.usefixtures("small_grid")


def test_curves_are_the_scores_of_the_model_at_that_step(pair, shift_run, held_out):
    start = sl.load(str(pair[0]))
    first, responses = plain_look(start.model, start, held_out)
    last, others = plain_look(merged(shift_run.lm), start, held_out)
    fixed, _ = plain_look(merged(shift_run.lm), start, held_out, given=responses)
    assert responses != others  # or the test could not tell the two texts apart
    found = values_at(shift_run, 0), values_at(shift_run, 4)
    for name, value in first.items():
        assert found[0][name] == pytest.approx(value, abs=1e-5), name
        assert found[0][f"fixed_{name}"] == found[0][name]
    for name in last:
        assert found[1][name] == pytest.approx(last[name], abs=1e-5), name
        assert found[1][f"fixed_{name}"] == pytest.approx(fixed[name], abs=1e-5), name
    assert abs(last["instruction_score"] - fixed["instruction_score"]) > 1e-3
    assert sorted(shift_run.shift.looks.found.steps) == [
        0,
        2,
        4,
    ]  # one look for each, not one for each micro-batch


def test_follow_rates_are_those_of_the_responses(shift_run):
    probes = pd.read_parquet(shift_run.folder / "tables" / "probes.parquet")
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
            assert values_at(shift_run, step)[f"follow_rate/{name}"] == float(passed), (step, name, texts)
        assert values_at(shift_run, step)["follow_rate"] == pytest.approx(rows["followed"].astype(float).mean())
    change = shift_run.shift.record()["follow_rate"]
    rates = [own[own["step"] == step]["followed"].astype(float).mean() for step in (0, 4)]
    assert [change["before"], change["after"]] == pytest.approx(rates)
    assert change["n"] == 4


def test_layers_turn_by_the_angles_between_their_principal_subspaces(pair, shift_run):
    start, tuned = sl.load(str(pair[0])).model, merged(shift_run.lm)
    for layer in range(2):
        spaces = []
        for model in (start, tuned):
            rows = model.model.layers[layer].mlp.down_proj.weight.detach().double().T.numpy()
            spaces.append(np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][:6])
        cosines = np.linalg.svd(spaces[0] @ spaces[1].T, compute_uv=False).clip(max=1)
        angle = np.degrees(np.arccos(cosines)).mean()
        assert angle > 1
        assert values_at(shift_run, 4)[f"rotation_angle/{layer}"] == pytest.approx(angle, rel=1e-3)
        assert values_at(shift_run, 0)[f"rotation_angle/{layer}"] == 0
    assert "pairs_instruction" not in values_at(shift_run, 2)  # at the ends only
    assert values_at(shift_run, 0)["pairs_instruction"] == values_at(shift_run, 0)["pairs_general"] == 0


def test_what_did_not_change_is_exactly_0_and_costs_nothing(pair, shift_words, tmp_path, monkeypatch):
    lexicon = lexicon_from_config(shift_words, tmp_path)
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


def test_training_is_the_same_with_and_without_looks(pair, held_out, shift_words, tmp_path):
    shift = callback(tmp_path, held_out, shift_words, every=3, rotation="off", pairs="off")
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
