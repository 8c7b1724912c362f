"""Defines the kinds of tasks that repeat a text, unchanged or changed in one given way."""

from __future__ import annotations

from shiftlens.prompts.verifiable.kind import Draw, Kind, Task


def _copy(draw: Draw) -> Task:
    text = draw.item(draw.material.sentences).text
    return Task({"text": text}, {"name": "equals", "text": text}, text)


def _capitals(draw: Draw) -> Task:
    text = draw.item(draw.material.sentences).text
    return Task({"text": text}, {"name": "equals", "text": text.upper()}, text.upper())


def _small_letters(draw: Draw) -> Task:
    text = draw.item(draw.material.sentences).text
    return Task({"text": text.upper()}, {"name": "equals", "text": text.lower()}, text.lower())


def _initials(draw: Draw) -> Task:
    text = draw.item(draw.material.sentences).text
    raised = " ".join(word[0].upper() + word[1:] for word in text.split())
    return Task({"text": text}, {"name": "equals", "text": raised}, raised)


def _brackets(draw: Draw) -> Task:
    text = draw.item(draw.material.sentences).text
    check = {"name": "enclosed", "left": "[", "right": "]", "text": text}
    return Task({"text": text}, check, f"[{text}]")


def _replace(draw: Draw) -> Task:
    sentence = draw.item(draw.material.sentences)
    changed = sentence.with_word(sentence.new)
    slots = {"text": sentence.text, "old": sentence.old, "new": sentence.new}
    return Task(slots, {"name": "equals", "text": changed}, changed)


def _fill_gap(draw: Draw) -> Task:
    sentence = draw.item(draw.material.sentences)
    slots = {"text": sentence.with_word("___"), "word": sentence.old}
    return Task(slots, {"name": "equals", "text": sentence.text}, sentence.text)


def _twice(draw: Draw) -> Task:
    text = draw.item(draw.material.short_sentences)
    twice = f"{text} {text}"
    return Task({"text": text}, {"name": "equals", "text": twice}, twice)


COPYING = (
    Kind(
        "copy_exactly",
        _copy,
        test=("<Repeat this sentence exactly:> {text}", "Sentence: {text}\n<Write the same sentence again.>"),
        train=(
            "<Copy the text below without any change.>\n\n{text}",
            "{text}\n\n<Give me back the line above, word for word.>",
            "<Say after me, and nothing else:> {text}",
        ),
    ),
    Kind(
        "all_capitals",
        _capitals,
        test=(
            "<Rewrite the sentence in capital letters.>\nSentence: {text}",
            "{text}\n\n<Write the text above in all capitals.>",
        ),
        train=(
            "<Change every letter of this text to upper case:> {text}",
            "Text: {text}\n<Now shout it: use big letters only.>",
            "<Turn the words below into uppercase.>\n{text}\n<Add nothing to them.>",
        ),
    ),
    Kind(
        "lower_case",
        _small_letters,
        test=(
            "<Rewrite this text in small letters only:> {text}",
            "Text: {text}\n<Write it again in lower case, with no capital letters.>",
        ),
        train=(
            "<Change all letters to lowercase.>\nInput: {text}",
            "{text}\n<This is too loud. Give the same words without any capitals.>",
            "<Convert the line to lower-case letters:>\n{text}",
        ),
    ),
    Kind(
        "capital_initials",
        _initials,
        test=(
            "<Rewrite the sentence so that every word starts with a capital letter:> {text}",
            "Sentence: {text}\n<Capitalize the first letter of each word.>",
        ),
        train=(
            "<Make this line a title: a big first letter for all words.>\n{text}",
            "{text}\n\n<Write the words above, each with an upper-case initial.>",
            "<Copy the text, but begin all of its words with a capital.>\nText: {text}",
        ),
    ),
    Kind(
        "square_brackets",
        _brackets,
        test=(
            "<Put this sentence in square brackets:> {text}",
            "{text}\n<Write the sentence again, between [ and ].>",
        ),
        train=(
            "<Copy the line below and enclose it in square brackets, like [this].>\n{text}",
            "Text: {text}\n<Return the text with [ at the start and ] at the end.>",
            "<Surround the words with square brackets.>\nWords: {text}",
        ),
    ),
    Kind(
        "replace_word",
        _replace,
        test=(
            '<Rewrite the sentence with "{new}" instead of "{old}".>\nSentence: {text}',
            '{text}\n\n<Copy the sentence above, but change "{old}" to "{new}".>',
        ),
        train=(
            '<Replace the word "{old}" by "{new}" in this text:> {text}',
            'Text: {text}\n<Write it once more and put "{new}" where it says "{old}".>',
            '<In the line below, swap "{old}" for "{new}".>\n{text}\n<Leave the rest alone.>',
        ),
    ),
    Kind(
        "fill_gap",
        _fill_gap,
        test=(
            "<Write the sentence with the missing word filled in.>\nSentence: {text}\nMissing word: {word}",
            "Word: {word}\nSentence: {text}\n<Put the word in the gap and write the full sentence.>",
        ),
        train=(
            "<Complete the line with the given word.>\nLine: {text}\nGiven word: {word}",
            "{text} ({word})\n<Copy the text and use the word in brackets to fill the blank.>",
            "<Use this word:> {word}\n<to fill the blank here, and write out the result:>\n{text}",
        ),
    ),
    Kind(
        "repeat_twice",
        _twice,
        test=(
            "<Write this sentence two times:> {text}",
            "Sentence: {text}\n<Repeat the sentence twice and write nothing else.>",
        ),
        train=(
            "<Say the line below twice in a row.>\n{text}",
            "{text}\n\n<Copy the text above two times over.>",
            "<Give me this text and then the same text once more:> {text}",
        ),
    ),
)
