"""The embedded data set: exact spans, halves apart, and checks that tell right responses from wrong ones."""

from __future__ import annotations

import json
import random
import re
from dataclasses import astuple
from itertools import pairwise

import pytest

from shiftlens.errors import ConfigError
from shiftlens.prompts.schema import Prompt
from shiftlens.prompts.verifiable import CHECKS, KINDS, build, check_problems, followed
from shiftlens.prompts.verifiable.kind import Draw
from shiftlens.prompts.verifiable.material import Material, Person
from shiftlens.prompts.verifiable.material_test_half import MATERIAL as FOR_TEST
from shiftlens.prompts.verifiable.material_train_half import MATERIAL as FOR_TRAIN
from shiftlens.prompts.verifiable.pieces import assemble, pieces_of

TEST, TRAIN = build("test"), build("train")
ALL = [*TEST, *TRAIN]

# Where a kind starts in the material of the test half, and, written by hand for the prompt that comes of it,
# responses that follow it and responses that do not.
BY_HAND: dict[str, tuple[int, list[str], list[str]]] = {
    "copy_exactly": (
        0,
        ['"The cat sleeps on the red chair."', "The cat sleeps on the red chair\n"],
        [
            "The cat sleeps on a red chair.",
            "the cat sleeps on the red chair.",
            "The cat sleeps on the red chair. It purrs.",
        ],
    ),
    "all_capitals": (
        4,
        ["OUR TEACHER WROTE A LONG LETTER"],
        ["Our teacher wrote a long letter.", "OUR TEACHER WROTE A LETTER.", "A LONG LETTER"],
    ),
    "lower_case": (
        8,
        ["the old clock stopped at midnight"],
        [
            "The old clock stopped at midnight.",
            "THE OLD CLOCK STOPPED AT MIDNIGHT.",
            "the clock stopped at midnight.",
        ],
    ),
    "capital_initials": (
        12,
        ["The Doctor Arrived Before The Storm"],
        ["The Doctor Arrived before the Storm.", "THE DOCTOR ARRIVED BEFORE THE STORM."],
    ),
    "square_brackets": (
        16,
        ["[The cat sleeps on the red chair]."],
        ["The cat sleeps on the red chair.", "(The cat sleeps on the red chair.)", "[The cat]", "[]"],
    ),
    "replace_word": (
        19,
        ["The museum is closed on Friday"],
        ["The museum is closed on Monday.", "Friday", "The museum is open on Friday."],
    ),
    "fill_gap": (
        22,
        ["Two children played in the garden"],
        ["garden", "Two children played in the ___.", "Two children played in the park."],
    ),
    "repeat_twice": (
        25,
        ["Ice is cold.\nIce is cold."],
        ["Ice is cold.", "Ice is cold. Ice is cold. Ice is cold.", "Ice is cold twice."],
    ),
    "three_bullets": (
        2,
        ["Here are the items:\n* Wrench\n* Shovel\n* Drill", "- wrench\n\n- shovel\n\n- drill"],
        [
            "wrench\nshovel\ndrill",
            "- wrench\n- shovel",
            "- saw\n- axe\n- drill\n- chisel",
            "1. wrench\n2. shovel\n3. drill",
        ],
    ),
    "numbered_list": (
        6,
        ["1) Goat\n2) Zebra\n3) Camel\n4) Lion"],
        [
            "- goat\n- zebra\n- camel\n- lion",
            "1. goat\n2. zebra\n3. camel",
            "1. zebra\n2. goat\n3. camel\n4. lion",
            "2. goat\n3. zebra\n4. camel\n5. lion",
        ],
    ),
    "comma_list": (
        10,
        ["wine,cider,lemonade,juice", "Wine, cider, lemonade, juice."],
        [
            "wine\ncider\nlemonade\njuice",
            "wine, cider, lemonade",
            "wine cider lemonade juice",
            "wine,\ncider,\nlemonade,\njuice",
        ],
    ),
    "hyphen_join": (
        14,
        ["wrench - chisel - drill - saw"],
        ["wrench chisel drill saw", "wrench-chisel-saw-drill", "wrench, chisel, drill, saw"],
    ),
    "reverse_list": (
        18,
        ["camel\nlion\ntiger\ngoat", "Camel, lion, tiger, goat."],
        ["goat, tiger, lion, camel", "camel, lion, tiger", "The list is camel, lion, tiger, goat"],
    ),
    "sort_words": (
        21,
        ["1. goat\n2. lion\n3. rabbit\n4. tiger"],
        ["goat, rabbit, lion, tiger", "goat, lion, rabbit", "tiger, rabbit, lion, goat"],
    ),
    "count_items": (
        24,
        ["The list has three words.", "There are 3 items in this one list."],
        ["3", "There are four words in the list.", "There are 3 or 4 words.", "rabbit, monkey, goat"],
    ),
    "choose_option": (
        27,
        ["The answer is (A) coffee", "the answer is: A. Coffee", "A) coffee"],
        [
            "The answer is B) wrench.",
            "The answer is A) wrench.",
            "The answer is C) coffee.",
            "The answer is A.",
            "coffee",
        ],
    ),
    "quote_sentence": (
        1,
        ["The farmer feeds his horses in the morning."],
        [
            "The farmer feeds horses.",
            "The baker sells fresh bread every day.",
            "The farmer feeds his horses in the morning. The baker sells fresh bread every day.",
        ],
    ),
    "json_record": (
        5,
        ['```json\n{"city": "Tunis", "name": "Omar"}\n```'],
        [
            '{"name": "Omar"}',
            '{"name": "Omar", "city": "Tunis", "job": "tailor"}',
            "name: Omar, city: Tunis",
            '{"name": "Omar", "city": "Rome"}',
            "[1]",
        ],
    ),
    "find_email": (
        9,
        ["Peter.Walsh@example.com."],
        ["peter@example.com", "You can reach Peter at peter.walsh@example.com"],
    ),
    "find_date": (
        13,
        ["20 October 1993", "He moved on 20 October 1993."],
        ["October 1993", "On 21 October 1993.", "20/10/1993"],
    ),
    "find_phone": (17, ["555-0173.", "Call Omar at 555-0173"], ["555-0137", "0173", "It is in Tunis."]),
    "yes_no": (
        20,
        ["no, it closes at six"],
        ["Yes, the shop is open.", "No.", "The shop closes at six.", "Nobody knows about it."],
    ),
    "one_word": (23, ["turquoise."], ["The teapot is turquoise.", "Green"]),
    "glossary": (
        26,
        ["ravosh salum quelba"],
        ["night, tree, water", "ravosh, quelba, salum", "night = ravosh, tree = salum, water = quelba"],
    ),
    "word_limit": (
        28,
        ["Broken lift, tired staff"],
        ["The office is closed.", "The lift in our office has been broken for a week.", "lift"],
    ),
    "start_with": (
        29,
        ["Dear Reader: a kitten is behind the curtain."],
        ["The kitten hid behind the curtain.", "Dear reader, hello.", "My dear reader, the kitten hid."],
    ),
    "no_letter_e": (3, ["A fish can swim."], ["I like fish.", "Cats can run fast.", "fish"]),
    "end_with": (
        7,
        ["I like cats. THANK YOU!"],
        ["I like cats.", "Thank you. I like cats.", "cats thank you", "I like dogs. Thank you."],
    ),
    "exact_words": (
        11,
        ["The sun is a big star."],
        ["The sun is big.", "The sun is a very big star.", "It is a very big star."],
    ),
    "capitals_only": (15, ["FISH LIVE IN THE SEA"], ["Fish live in the sea.", "I LIKE SOUP A LOT", "FISH"]),
    "copy_list": (
        2,
        ["- saw\n- axe\n- drill\n- chisel"],
        ["saw, axe, drill", "saw, drill, axe, chisel"],
    ),
    "use_word": (
        3,
        ["Some fish can fly."],
        ["fish", "I like cats a lot.", 'Write a short sentence with the word "fish" in it.'],
    ),
    "job_sentence": (
        0,
        ["Clara works as a painter."],
        [
            "painter",
            "Clara is from Oslo.",
            "Clara is a painter and she comes from the city of Oslo, in Norway.",
        ],
    ),
    "greet_by_name": (
        0,
        ["Good morning, Clara!", "Dear Ms Clara Berg"],
        ["Clara", "Hello, how are you?", "Name: Clara Berg"],
    ),
}


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


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_responses_by_hand(kind: str) -> None:
    shift, right, wrong = BY_HAND[kind]
    (found,) = [each for each in KINDS if each.name == kind]
    check = found.make(Draw(FOR_TEST, 0, shift, random.Random(f"verifiable/test/{kind}/00"))).check
    assert len(wrong) >= 2
    assert [followed(check, response) for response in right] == [True] * len(right)
    assert [response for response in wrong if followed(check, response)] == []


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
