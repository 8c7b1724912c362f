"""The embedded data set: exact spans, halves apart, and checks of a response one by one."""

from __future__ import annotations

import json
import re
from dataclasses import astuple
from itertools import pairwise

import pytest

from shiftlens.errors import ConfigError
from shiftlens.prompts.schema import Prompt
from shiftlens.prompts.verifiable import CHECKS, KINDS, build, check_problems, followed
from shiftlens.prompts.verifiable.material import Material, Person
from shiftlens.prompts.verifiable.material_test_half import MATERIAL as FOR_TEST
from shiftlens.prompts.verifiable.material_train_half import MATERIAL as FOR_TRAIN
from shiftlens.prompts.verifiable.pieces import assemble, pieces_of

pytestmark = pytest.mark.quick

TEST, TRAIN = build("test"), build("train")
ALL = [*TEST, *TRAIN]


def texts(prompt: Prompt, spans: tuple[tuple[int, int], ...]) -> list[str]:
    return [prompt.text[start:end] for start, end in spans]


def words(value: str) -> set[str]:
    return set(re.findall(r"\w+", value.lower()))


def fields(material: Material, name: str) -> set[str]:
    """All texts of one part of the material, however it nests them."""
    found: set[str] = set()
    for row in getattr(material, name):
        row = astuple(row) if isinstance(row, Person) else row
        found |= {text.lower() for text in ([row] if isinstance(row, str) else row)}
    return found


def test_counts_ids_and_order() -> None:
    assert len(TEST) >= 160
    assert len(TRAIN) >= 320
    assert len({prompt.id for prompt in ALL}) == len(ALL)
    assert len({prompt.text for prompt in ALL}) == len(ALL)
    for half, prompts in (("test", TEST), ("train", TRAIN)):
        names = [prompt.id.split("/") for prompt in prompts]
        assert {(name[0], name[1], len(name)) for name in names} == {("verifiable", half, 4)}
        assert len({name[2] for name in names[: len(KINDS)]}) == len(KINDS) >= 18
        assert len({name[2] for name in names[:40]}) >= 15
    assert {prompt.dataset for prompt in ALL} == {"verifiable"}
    assert sum(bool(prompt.context) for prompt in ALL) >= 0.7 * len(ALL)


def test_the_same_every_time() -> None:
    assert build("test") == TEST
    assert build() == TEST
    # Fixed values: a change here changes every stored result.
    by_id = {prompt.id: prompt for prompt in ALL}
    assert by_id["verifiable/test/find_phone/00"].reference == "The number is 555-0173."
    assert by_id["verifiable/train/sort_words/00"].reference == "banana, grape, lemon, plum"


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_spans_checks_and_references(kind: str) -> None:
    for prompt in (prompt for prompt in ALL if prompt.id.split("/")[2] == kind):
        spans = sorted((*prompt.instruction, *prompt.context))
        assert prompt.instruction
        assert all(0 <= start < end <= len(prompt.text) for start, end in spans)
        assert all(left[1] <= right[0] for left, right in pairwise(spans))
        assert all(text.strip() for text in texts(prompt, tuple(spans)))
        assert not re.search(r"[<>{}]", prompt.text)
        # What is in no span is label and layout only.
        rest = "".join(
            prompt.text[end:start]
            for end, start in zip(
                [0, *(e for _, e in spans)], [*(s for s, _ in spans), len(prompt.text)], strict=True
            )
        )
        assert re.fullmatch(r"(\s|[A-Z][a-z]+( [a-z]+)?: ?|[()])*", rest)
        assert prompt.check is not None
        assert prompt.reference is not None
        assert check_problems(prompt.check) is None
        assert json.loads(json.dumps(prompt.check)) == prompt.check
        assert followed(prompt.check, prompt.reference)
        assert followed(prompt.check, f"\n {prompt.reference} \n")
        for wrong in ("", " \n", prompt.text, "I am not sure what you mean."):
            assert not followed(prompt.check, wrong)


def test_context_is_the_material() -> None:
    first = {prompt.id.split("/")[2]: prompt for prompt in TEST[: len(KINDS)]}
    assert texts(first["copy_exactly"], first["copy_exactly"].context) == ["The museum is closed on Monday."]
    assert texts(first["copy_exactly"], first["copy_exactly"].instruction) == ["Repeat this sentence exactly:"]
    assert texts(first["yes_no"], first["yes_no"].instruction)[1] == "Does Maria have a sister?"
    assert texts(first["replace_word"], first["replace_word"].instruction) == [
        'Rewrite the sentence with "bright" instead of "quiet".'
    ]
    assert first["no_letter_e"].context == ()


def test_halves_share_no_wording() -> None:
    def wordings(half: str) -> set[str]:
        templates = [template for kind in KINDS for template in getattr(kind, half)]
        inside = [part for template in templates for part in re.findall(r"<(.*?)>", template)]
        # The slot of a question alone has no wording of its own.
        return {re.sub(r"\W+", " ", part).lower() for part in inside} - {" question "}

    assert not wordings("test") & wordings("train")
    assert all(len(kind.test) >= 2 and len(kind.train) >= 2 for kind in KINDS)


def test_halves_share_no_content() -> None:
    ours, theirs = ({text for p in half for text in texts(p, p.context)} for half in (TEST, TRAIN))
    assert not ours & theirs
    for name in (
        "short_sentences",
        "passages",
        "keywords",
        "openings",
        "endings",
        "colours",
        "glossary",
        "people",
    ):
        assert not fields(FOR_TEST, name) & fields(FOR_TRAIN, name), name
    left, right = ({w.lower() for _, ws in m.groups for w in ws} for m in (FOR_TEST, FOR_TRAIN))
    assert not left & right
    assert not {s.topic for s in FOR_TEST.sentences} & {s.topic for s in FOR_TRAIN.sentences}
    assert not {s.text for s in FOR_TEST.sentences} & {s.text for s in FOR_TRAIN.sentences}


@pytest.mark.parametrize("material", [FOR_TEST, FOR_TRAIN], ids=["test", "train"])
def test_material_is_sound(material: Material) -> None:
    m = material
    for sentence in m.sentences:
        assert sentence.topic in words(sentence.text)
        assert sum(sentence.topic in words(other.text) for other in m.sentences) == 1
        assert sentence.text.split().count(sentence.old) + sentence.text.count(f"{sentence.old}.") == 1
        assert sentence.new != sentence.old
    for keyword, example in m.keywords:
        assert keyword in words(example)
        assert "e" not in (keyword + example).lower()
    for passage, topic, summary in m.passages:
        assert topic in words(passage)
        assert len(summary.split()) <= 8
    groups = [word for _, group in m.groups for word in group]
    assert len(set(groups)) == len(groups)
    assert {answer.split(",")[0] for _, _, answer in m.facts} == {"Yes", "No"}
    assert len({invented for _, invented in m.glossary}) == len(m.glossary)


def test_pieces_take_slots_as_they_are() -> None:
    text, instruction, context = assemble(pieces_of("In: {a}\n<Say {b}{a}>", {"a": "<x> {b}", "b": "hi"}))
    assert text == "In: <x> {b}\nSay hi<x> {b}"
    assert [text[slice(*span)] for span in instruction] == ["Say hi<x> {b}"]
    assert [text[slice(*span)] for span in context] == ["<x> {b}"]


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"name": "uper"}, "uppercase"),
        ({}, "unknown check None"),
        ({"name": ["equals"]}, "unknown check"),
        ("uppercase", "must be an object"),
        ({"name": "equals"}, "needs 'text' (a text)"),
        ({"name": "equals", "text": 3}, "must be a text, got 3"),
        ({"name": "equals", "text": "a", "case": True}, "does not know 'case'"),
        ({"name": "words", "least": True, "most": 2}, "'least' must be a whole number"),
        ({"name": "words", "least": 1, "most": -2}, "'most' must be a whole number"),
        ({"name": "order", "items": "ab"}, "must be a list of texts"),
        ({"name": "json_object", "keys": ["a"], "values": {"a": 1}}, "must be an object of texts"),
        ({"name": "all", "checks": []}, "must be a list of checks"),
        ({"name": "all", "checks": [{"name": "uppercase"}, {"name": "nope"}]}, "unknown check 'nope'"),
    ],
)
def test_malformed_checks(check: object, said: str) -> None:
    problem = check_problems(check)
    assert problem is not None
    assert said in problem
    with pytest.raises(ConfigError):
        followed(check, "anything")  # type: ignore[arg-type]


def test_every_problem_is_told_and_every_check_used() -> None:
    problem = check_problems({"name": "words", "mots": 1})
    assert problem is not None
    assert problem.count(";") == 2
    assert all(name in str(check_problems({"name": "?"})) for name in CHECKS)
    used = {part["name"] for p in ALL if p.check for part in (p.check, *p.check.get("checks", ()))}
    assert used == set(CHECKS) - {"lowercase"}


@pytest.mark.parametrize(
    ("check", "response", "expected"),
    [
        ({"name": "lowercase"}, "all small", True),
        ({"name": "lowercase"}, "123", False),
        ({"name": "uppercase"}, "ÄRGER 1!", True),
        ({"name": "equals", "text": "it's"}, "“it’s.”", True),
        ({"name": "starts_with", "text": "Yes"}, "Yesterday it rained", False),
        ({"name": "ends_with", "text": "end"}, "the weekend", False),
        ({"name": "mentions", "texts": ["cat"]}, "concatenate", False),
        ({"name": "mentions", "texts": ["cat"]}, "The CAT's bed", True),
        ({"name": "bullets", "count": 2}, "- a\n- b", True),
        ({"name": "bullets", "count": 2}, "Intro:\n- a\n- b\nbye", False),
        ({"name": "bullets", "count": 1}, "-a", False),
        ({"name": "number", "value": 1}, "There is one.", True),
        ({"name": "number", "value": 12}, "twelve", True),
        ({"name": "number", "value": 1}, "11", False),
        ({"name": "choice", "letter": "B", "others": ["tea"]}, "(b)", True),
        ({"name": "choice", "letter": "B", "others": ["tea"]}, "Because", False),
        ({"name": "choice", "letter": "A", "others": ["tea"]}, "A: not tea", False),
        ({"name": "json_object", "keys": ["a"]}, '{"a": null}', True),
        ({"name": "json_object", "keys": ["a"]}, "[" * 100_000, False),
        ({"name": "words", "least": 2, "most": 2}, "well-known fact", True),
        ({"name": "enclosed", "left": "(", "right": ")"}, "( )", False),
    ],
)
def test_single_checks(check: dict[str, object], response: str, expected: bool) -> None:
    assert followed(check, response) is expected


def test_unknown_half() -> None:
    with pytest.raises(ConfigError, match="test, train"):
        build("dev")
