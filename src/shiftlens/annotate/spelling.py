"""Analyses the spelling of words: affixes, root, and first and last letters.

The rules:

* The affixes are those of ``assets/annotate/affixes.tsv``. An affix counts if the rest of the word has at least
  three letters, one of them a vowel or y, and is itself a word of the vocabulary, after undoing the spelling
  changes of English (mak-ing: make; runn-ing: run; happi-ness: happy). An affix of four letters or more also
  counts if the rest is no word (psych-ology). So *during* and *king* do not have the suffix -ing.
* If several suffixes fit, only the longest counts. The same holds for prefixes.
* The root of a word is the vocabulary word that remains when no affix can be removed any more.
* The last 2, 3 and 4 letters of a word without a suffix, and the first 1 to 4 letters of a word without a prefix,
  stand for its sound. At least one letter must remain, so no word is its own rhyme.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

AFFIXES = Path(__file__).parents[1] / "assets" / "annotate" / "affixes.tsv"
_VOWELS = frozenset("aeiouy")
_TAILS, _HEADS = (2, 3, 4), (1, 2, 3, 4)


@dataclass(frozen=True)
class Spelling:
    """Spelling of one word.

    Args:
        affixes: Affixes of the word, e.g. ``("un-", "-able")``.
        letters: First and last letters that are no affix, e.g. ``("st...", "...ight")``.
        root: Word to which the affixes were added; the word itself if it has none.
    """

    affixes: tuple[str, ...]
    letters: tuple[str, ...]
    root: str


@functools.cache
def affix_meanings() -> dict[str, str]:
    """Return all known affixes and their meanings.

    Example:
        >>> affix_meanings()["-ness"]
        'quality'
    """
    lines = AFFIXES.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines if line and not line.startswith("#"))


def spell(words: Sequence[str]) -> list[Spelling]:
    """Analyse the spelling of each word of a vocabulary.

    Args:
        words: Vocabulary, in lower case.

    Returns:
        One :class:`Spelling` per word.

    Example:
        >>> words = spell(["make", "making", "remake", "during"])
        >>> [word.affixes for word in words], [word.root for word in words]
        ([(), ('-ing',), ('re-',), ()], ['make', 'make', 'make', 'during'])
        >>> words[1].letters
        ('m...', 'ma...', 'mak...', 'maki...')
    """
    known = frozenset(words)
    suffixes = sorted((a[1:] for a in affix_meanings() if a.startswith("-")), key=len, reverse=True)
    prefixes = sorted((a[:-1] for a in affix_meanings() if a.endswith("-")), key=len, reverse=True)

    @functools.cache
    def parts(word: str) -> tuple[str, str, str]:
        """Return suffix, prefix (each empty if there is none) and root."""
        suffix, shorter = _longest(word, suffixes, known, at_end=True)
        prefix, inner = _longest(word, prefixes, known, at_end=False)
        rest = shorter or inner
        return suffix, prefix, parts(rest)[2] if rest else word

    return [_spelling(word, *parts(word)) for word in words]


def _spelling(word: str, suffix: str, prefix: str, root: str) -> Spelling:
    """Return the :class:`Spelling` of a word with the given suffix, prefix and root."""
    tails = [f"...{word[-n:]}" for n in _TAILS if len(word) > n and not suffix]
    heads = [f"{word[:n]}..." for n in _HEADS if len(word) > n and not prefix]
    affixes = [*([f"{prefix}-"] if prefix else []), *([f"-{suffix}"] if suffix else [])]
    return Spelling(tuple(affixes), (*tails, *heads), root)


def _longest(word: str, affixes: Sequence[str], known: Set[str], at_end: bool) -> tuple[str, str]:
    """Return the longest affix that counts and the vocabulary word left without it; empty strings if none."""
    for affix in affixes:
        if not (word.endswith(affix) if at_end else word.startswith(affix)):
            continue
        rest = word[: -len(affix)] if at_end else word[len(affix) :]
        if len(rest) < 3 or not _VOWELS & set(rest):
            continue
        forms = (form for form in (_undone(rest) if at_end else (rest,)) if len(form) < len(word))
        base = next((form for form in forms if form in known), "")
        if base or len(affix) >= 4:
            return affix, base
    return "", ""


def _undone(rest: str) -> tuple[str, ...]:
    """Return the words that a suffix may have been added to, given what remains without the suffix."""
    single = (rest[:-1],) if rest[-1] == rest[-2] else ()
    changed = (rest[:-1] + "y",) if rest[-1] == "i" else ()
    return (rest, rest + "e", rest + "y", *single, *changed)
