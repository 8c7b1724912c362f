"""What prompts are made of; the test half and the train half have their own, with nothing in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sentence:
    """A sentence with one word marked: ``before + old + after``; ``new`` fits in place of ``old``.

    Args:
        topic: a word no other sentence of the same half has.
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
        """The sentence with ``word`` in place of the marked one."""
        return self.before + word + self.after


@dataclass(frozen=True)
class Person:
    """A made-up person."""

    name: str
    surname: str
    city: str
    job: str


@dataclass(frozen=True)
class Material:
    """The material of one half.

    Args:
        sentences: sentences of six to nine words.
        short_sentences: sentences of three to five words.
        passages: (passage, its topic, a summary of at most eight words that has the topic).
        keywords: (word, sentence with that word and without the letter e).
        groups: (category with article, its words); no word belongs to two of them.
        people: people.
        email_frame, date_frame, phone_frame, job_frame: sentences about a person, with
            ``{name}``, ``{city}`` and the thing to find.
        years: first and last year of dates.
        mail_host: domain of e-mail addresses.
        area: first figures of telephone numbers.
        colour_frame: sentence with ``{thing}`` and ``{colour}``.
        colours: (thing, colour).
        facts: (statement, question about it, right answer as a sentence that starts with Yes or No).
        glossary: (English word, invented word).
        openings, endings: phrases to start or end an answer with.
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
    r"""The fields of each line of a table, split at ``|``.

    Example:
        >>> rows("a|b\nc|d")
        [['a', 'b'], ['c', 'd']]
    """
    return [line.split("|") for line in table.strip().splitlines()]


def read_sentences(table: str) -> tuple[Sentence, ...]:
    """Sentences from lines ``sentence with a *marked* word|topic|new word``.

    Example:
        >>> read_sentences("The *red* hat fell.|hat|blue")[0].with_word("green")
        'The green hat fell.'
    """
    sentences = []
    for text, topic, new in rows(table):
        before, old, after = text.split("*")
        sentences.append(Sentence(before, old, after, topic, new))
    return tuple(sentences)
