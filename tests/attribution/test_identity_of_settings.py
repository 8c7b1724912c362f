"""Everything that changes numbers is in the ledger key, and today's rows keep their keys."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest
import torch
from helpers.tiny import tiny, tokenizer

from shiftlens.attribution import AttributionModule, Engine, Explained, Request
from shiftlens.attribution.methods import METHODS, Ablation, Gradient, Method, method_from_config
from shiftlens.attribution.request import Units
from shiftlens.attribution.role import Role, keyed
from shiftlens.errors import ConfigError, ShiftLensError
from shiftlens.models import LM, Identity
from shiftlens.support.marked import costs_only, numbers_of, numeric

pytestmark = pytest.mark.quick

ASKED = Request("", (1, 2, 3), (1, 2), None, 8, (2,))


def key(request: Request = ASKED, engine: Engine | None = None) -> str:
    role = object.__new__(Role)  # of a role, only these two count
    object.__setattr__(role, "identity", Identity("m", "f00", "", "float32"))
    object.__setattr__(role, "engine", engine or Engine())
    return keyed(request, role).key


def test_keys_of_rows_that_exist_stay_valid():
    """Keys as version 0.1.0 made them."""
    given = replace(ASKED, response_ids=(7, 8))
    assert key() == "c08fae18184d38e6366caaee0cb4262f"
    assert key(given) == "a618ee588ed64065669c24c376a9e386"
    assert key(replace(given, include_response=True)) == "ef8c99393453e568827099e06a671ee6"
    assert key(given, Engine(target="logit_difference")) == "e2a4da7f6baf25cee21fd9f873dc823a"
    assert key(given, Engine("reverse", 4, "log_probability")) == "a618ee588ed64065669c24c376a9e386"


CHANGED = {
    "input_ids": (1, 2, 4), "prompt_index": (1,), "response_ids": (5,), "max_new_tokens": 9, "stops": (3,),
    "include_response": True, "method": Ablation(), "outside": (0,), "units": Units("word", (0, 0)), "foils": (7,), "sets": ((1,), (1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Request) if field.name != "key"])
def test_every_field_of_a_request_is_in_the_key(name):
    assert name in CHANGED, f"does the new field {name} of Request change numbers? Then it goes into keyed()"
    # Units are for methods that take some; to others they are nothing.
    asked = replace(ASKED, method=Ablation()) if name == "units" else ASKED
    assert key(replace(asked, **{name: CHANGED[name]})) != key(asked)


def test_units_are_nothing_to_a_method_that_adds_up():
    assert key(replace(ASKED, units=Units("word", (0, 0)))) == key()


def test_a_target_of_its_own_is_in_the_key_where_the_numbers_differ():
    targets = [Engine(target=target) for target in ("probability", "log_probability")]
    assert len({key(ASKED, engine) for engine in targets}) == 1  # one derivative up to a factor
    assert len({key(replace(ASKED, method=Ablation()), engine) for engine in targets}) == 2


def test_every_field_of_an_engine_says_whether_numbers_depend_on_it():
    assert numbers_of(Engine()) == {"target": "probability", "foils": None}

    @dataclass(frozen=True)
    class Rounded(Engine):
        digits: int = numeric(7)

        def identity(self):
            return {**super().identity(), "digits": self.digits}

    @dataclass(frozen=True)
    class Careless(Engine):
        digits: int = 7

    assert key(engine=Rounded()) != key(engine=Rounded(digits=3)) != key()
    with pytest.raises(TypeError, match="Careless: digits: say by numeric"):
        key(engine=Careless())


def test_settings_of_a_method_are_in_the_key():
    @dataclass(frozen=True)
    class Steps(Method):
        name = "steps"
        words = "steps"
        count: int = numeric(8)
        chunk: int = costs_only(1)

        def explain(self, *_):
            raise NotImplementedError

    keys = [key(replace(ASKED, method=method)) for method in (Gradient(), Steps(), Steps(9), Steps(chunk=2))]
    assert len(set(keys)) == 3 and keys[1] == keys[3]


def test_methods_from_configuration():
    assert {name: method_from_config(name).name for name in METHODS} == {name: name for name in METHODS}
    mean = method_from_config({"_target_": "shiftlens.attribution.methods.Ablation", "by": "mean"})
    assert mean == Ablation("mean")
    assert method_from_config(mean) is mean
    for value, message in (
        (
            "lime",
            "saliency.method=lime: expected one of gradient, ablation, lrp, integrated, attention, random, or a node with _target_",
        ),
        (3, "saliency.method=3: expected one of"),
        ({"_target_": "collections.Counter"}, "expected a Method, got Counter"),
        (
            {"_target_": "shiftlens.attribution.methods.Ablation", "by": "noise"},
            "expected one of zero, mean",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            method_from_config(value)


class _Plain(Method):
    """A method of a user, with whatever identity."""

    name = "plain"
    words = "plain"

    def __init__(self, settings=None) -> None:
        self.settings = settings

    def identity(self):
        return self.settings

    def explain(self, model, input_ids, sources, response, engine):
        return Explained(torch.zeros(1, 1), engine.explain(model, input_ids, sources, response).reading, "none")


def test_no_identity_gives_a_user_s_method_the_rows_of_another_or_hides_the_engine_s():
    class Flipped(Gradient):
        pass

    methods = [
        Gradient(),
        Flipped(),
        Ablation(),
        _Plain({}),
        _Plain({"ablation": "zero"}),
        _Plain({"method": "steps"}),
    ]
    assert len({key(replace(ASKED, method=method)) for method in methods}) == len(methods)
    hiding = replace(ASKED, method=_Plain({"target": "mine"}))
    assert key(hiding) != key(hiding, Engine(target="logit_difference"))


def test_settings_that_are_not_marked_are_refused_not_left_out():
    class Careless(_Plain):
        identity = Method.identity

    with pytest.raises(TypeError, match="Careless: settings: make it a dataclass"):
        key(replace(ASKED, method=Careless(8)))
    with pytest.raises(ConfigError, match="saliency.method=.*make it a dataclass"):
        method_from_config(Careless(8))


def test_methods_that_cannot_be_made_or_named_are_configuration_errors(monkeypatch):
    class Needs(_Plain):
        def __init__(self, steps) -> None: ...

    class Nameless(Gradient):
        words = None

    monkeypatch.setitem(METHODS, "needs", Needs)
    monkeypatch.setitem(METHODS, "abstract", Method)
    for value, message in (
        ("needs", "steps"),
        ("abstract", "abstract"),
        (Nameless(), "needs the texts name and words"),
    ):
        with pytest.raises(ConfigError, match=message):
            method_from_config(value)


def test_a_method_that_gives_another_shape_is_refused_before_the_ledger():
    module = AttributionModule(LM(tiny("llama"), tokenizer(), "none", Identity("m", "f", "", "float64")))
    with pytest.raises(ShiftLensError, match=r"plain gave \(1, 1\) numbers for 2 sources and 2 response tokens"):
        module.predict_step([replace(ASKED, response_ids=(7, 8), method=_Plain({}))])
