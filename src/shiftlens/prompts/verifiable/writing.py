"""Defines the kinds of tasks without context: a free sentence under one constraint that can be checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shiftlens.prompts.verifiable.kind import Draw, Kind, Task


def _on(keyword: str, *checks: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make a check that the response contains the keyword and passes the other checks."""
    return {"name": "all", "checks": [{"name": "mentions", "texts": [keyword]}, *checks]}


def _use_word(draw: Draw) -> Task:
    keyword, sentence = draw.item(draw.material.keywords)
    # Without the last check, a copy of the instruction would pass: it contains "word".
    checks = ({"name": "words", "least": 3, "most": 20}, {"name": "without", "text": "word"})
    return Task({"keyword": keyword}, _on(keyword, *checks), sentence)


def _no_e(draw: Draw) -> Task:
    keyword, sentence = draw.item(draw.material.keywords)
    checks = ({"name": "without", "text": "e"}, {"name": "words", "least": 3, "most": 20})
    return Task({"keyword": keyword}, _on(keyword, *checks), sentence)


def _end_with(draw: Draw) -> Task:
    keyword, sentence = draw.item(draw.material.keywords)
    ending = draw.item(draw.material.endings)
    # The length is checked because a copy of the instruction may also end with the required words.
    short = {"name": "words", "least": 4, "most": 12}
    check = _on(keyword, {"name": "ends_with", "text": ending}, short)
    return Task({"keyword": keyword, "ending": ending}, check, f"{sentence} {ending}.")


def _exact_words(draw: Draw) -> Task:
    keyword, sentence = draw.item(draw.material.keywords)
    count = len(sentence.split())
    check = _on(keyword, {"name": "words", "least": count, "most": count})
    return Task({"keyword": keyword, "count": str(count)}, check, sentence)


def _capitals(draw: Draw) -> Task:
    keyword, sentence = draw.item(draw.material.keywords)
    checks = ({"name": "uppercase"}, {"name": "words", "least": 3, "most": 25})
    return Task({"keyword": keyword}, _on(keyword, *checks), sentence.upper())


WRITING = (
    Kind(
        "use_word",
        _use_word,
        test=(
            '<Write a short sentence with the word "{keyword}" in it.>',
            '<Use the word "{keyword}" in one short sentence.>',
        ),
        train=(
            '<Make up a brief line in which the word "{keyword}" occurs.>',
            '<Give me an example of the word "{keyword}" in a sentence, and keep it short.>',
            '<Think of one short remark that contains the word "{keyword}".>',
        ),
    ),
    Kind(
        "no_letter_e",
        _no_e,
        test=(
            '<Write a short sentence with the word "{keyword}". Do not use the letter e.>',
            '<Without using the letter "e", write one sentence that has the word "{keyword}" in it.>',
        ),
        train=(
            '<Use "{keyword}" in a brief line in which no e occurs.>',
            '<Avoid e, the fifth letter, in a short sentence that has "{keyword}" in it.>',
            '<Think of a few words with "{keyword}" among them and the letter e in none of them.>',
        ),
    ),
    Kind(
        "end_with",
        _end_with,
        test=(
            '<Write one short sentence with the word "{keyword}". End your answer with "{ending}".>',
            '<Use the word "{keyword}" in a short sentence, and finish with "{ending}".>',
        ),
        train=(
            '<Tell me a short fact in which "{keyword}" occurs. Your last words must be "{ending}".>',
            '<Close your reply with "{ending}" after a brief line that has "{keyword}" in it.>',
            '<Make a short remark with the word "{keyword}" and let "{ending}" be the end of it.>',
        ),
    ),
    Kind(
        "exact_words",
        _exact_words,
        test=(
            '<Write a sentence of exactly {count} words with the word "{keyword}".>',
            '<Use the word "{keyword}" in a sentence that has {count} words.>',
        ),
        train=(
            '<Tell me something with "{keyword}" in it, in {count} words, no more and no fewer.>',
            '<I need a line of {count} words, one of which is "{keyword}".>',
            '<Make up a phrase with "{keyword}" in it. Its length must be {count} words.>',
        ),
    ),
    Kind(
        "capitals_only",
        _capitals,
        test=(
            '<Write a short sentence with the word "{keyword}". Use capital letters only.>',
            '<In all capitals, write one short sentence that has the word "{keyword}" in it.>',
        ),
        train=(
            '<Shout a brief line with "{keyword}" in it, in upper case throughout.>',
            '<Hold down the shift key and tell me something short that has "{keyword}" in it.>',
            '<No small letters, please: a short remark with the word "{keyword}".>',
        ),
    ),
)
