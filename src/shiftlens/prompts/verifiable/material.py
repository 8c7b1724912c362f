"""Defines the material of prompts, such as sentences and words. The two halves share no material."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sentence:
    """Sentence with one marked word: ``before + old + after``.

    Args:
        before: Text before the marked word.
        old: Marked word.
        after: Text after the marked word.
        topic: Word that occurs in no other sentence of the same half.
        new: Word that fits in place of ``old``.
    """

    before: str
    old: str
    after: str
    topic: str
    new: str

    @property
    def text(self) -> str:
        """The whole sentence."""
        return self.before + self.old + self.after

    def with_word(self, word: str) -> str:
        """Return the sentence with ``word`` in place of the marked word."""
        return self.before + word + self.after


@dataclass(frozen=True)
class Person:
    """Fictional person."""

    name: str
    surname: str
    city: str
    job: str


@dataclass(frozen=True)
class Material:
    """Material of one half.

    Args:
        sentences: Sentences of six to nine words.
        short_sentences: Sentences of three to five words.
        passages: Triples (passage, topic, summary of at most eight words that contains the topic).
        keywords: Pairs (word, sentence with this word and without the letter e).
        groups: Pairs (category with article, words of the category); no word belongs to two categories.
        people: Fictional persons.
        email_frame, date_frame, phone_frame, job_frame: Sentences about a person, with the slots ``{name}`` and
            ``{city}`` and one for the item to find.
        years: First and last year of dates.
        mail_host: Domain of e-mail addresses.
        area: First digits of telephone numbers.
        colour_frame: Sentence with the slots ``{thing}`` and ``{colour}``.
        colours: Pairs (thing, colour).
        facts: Triples (statement, question about it, correct answer that starts with Yes or No).
        glossary: Pairs (English word, invented word).
        openings, endings: Phrases to start or end a response with.
    """

    sentences: Sequence[Sentence]
    short_sentences: Sequence[str]
    passages: Sequence[tuple[str, str, str]]
    keywords: Sequence[tuple[str, str]]
    groups: Sequence[tuple[str, Sequence[str]]]
    people: Sequence[Person]
    email_frame: str
    date_frame: str
    phone_frame: str
    job_frame: str
    years: tuple[int, int]
    mail_host: str
    area: str
    colour_frame: str
    colours: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str, str]]
    glossary: Sequence[tuple[str, str]]
    openings: Sequence[str]
    endings: Sequence[str]


def rows(table: str) -> list[list[str]]:
    r"""Split each line of a table at ``|``; return the fields by line.

    Example:
        >>> rows("a|b\nc|d")
        [['a', 'b'], ['c', 'd']]
    """
    return [line.split("|") for line in table.strip().splitlines()]


def read_sentences(table: str) -> tuple[Sentence, ...]:
    """Read sentences from lines of the form ``sentence with a *marked* word|topic|new word``.

    Example:
        >>> read_sentences("The *red* hat fell.|hat|blue")[0].with_word("green")
        'The green hat fell.'
    """
    sentences = []
    for text, topic, new in rows(table):
        before, old, after = text.split("*")
        sentences.append(Sentence(before, old, after, topic, new))
    return tuple(sentences)
