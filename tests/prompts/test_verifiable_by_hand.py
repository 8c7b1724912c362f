"""Right and wrong responses written by hand, told apart by the check of each kind of embedded prompt."""

from __future__ import annotations

import random

import pytest

from shiftlens.prompts.verifiable import KINDS, followed
from shiftlens.prompts.verifiable.kind import Draw
from shiftlens.prompts.verifiable.material_test_half import MATERIAL as FOR_TEST

pytestmark = pytest.mark.quick

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


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_responses_by_hand(kind: str) -> None:
    shift, right, wrong = BY_HAND[kind]
    (found,) = [each for each in KINDS if each.name == kind]
    check = found.make(Draw(FOR_TEST, 0, shift, random.Random(f"verifiable/test/{kind}/00"))).check
    assert len(wrong) >= 2
    assert [followed(check, response) for response in right] == [True] * len(right)
    assert [response for response in wrong if followed(check, response)] == []
