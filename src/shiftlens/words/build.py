"""Builds a vocabulary by counting the words of your own users' prompts (the paper uses ShareGPT's)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from shiftlens.errors import ConfigError, Problem
from shiftlens.support.setting_rules import Number, refuse, setting_problems
from shiftlens.words.files import raise_problems, read_text
from shiftlens.words.morphology import lemma
from shiftlens.words.vocabulary import Words, is_word, ranked

FORMS = (
    'Each record is {"prompt": TEXT}, {"text": TEXT} or {"conversations": [{"from": "human", "value": TEXT}]}. '
    "A file is a JSON list of records, or has one record per line."
)


def count_words(texts: Iterable[str], min_count: int) -> Words:
    """Count the dictionary forms (lemmas) of the words in a collection of texts.

    ``wordfreq`` splits the texts into lower-case tokens. Every token that passes
    :func:`~shiftlens.words.vocabulary.is_word` is replaced by its :func:`~shiftlens.words.morphology.lemma`.

    Args:
        texts: Texts of the prompts.
        min_count: Smallest count with which a lemma is kept.

    Returns:
        The lemmas, each with its share of all counted words, largest share first; lemmas of equal frequency are in
        alphabetical order.

    Source:
        Wu et al., arXiv 2310.00492, who use NLTK's tokenizer, tagger and WordNet lemmatizer. This function runs no
        tagger, so a form that can belong to two words always counts for the same one.

    Example:
        >>> count_words(["Write a poem!", "She writes poems, writing them twice."], 2).words
        ('write', 'poem')
    """
    from wordfreq.tokens import tokenize

    forms: Counter[str] = Counter()
    for text in texts:
        forms.update(token for token in tokenize(text, "en") if is_word(token))
    lemmas: Counter[str] = Counter()
    for form, count in forms.items():
        lemmas[lemma(form)] += count
    return ranked({word: lemmas[word] / lemmas.total() for word in sorted(lemmas) if lemmas[word] >= min_count})


def read_texts(path: str | Path) -> list[str]:
    """Read the texts that users wrote, from ShareGPT-style JSON or from prompts in JSON Lines.

    Args:
        path: File to read; :data:`FORMS` describes its format. Of a conversation, only the turns whose ``from`` is
            *human* or *user* are read.

    Returns:
        The texts, in the order of the file.

    Raises:
        ConfigError: If the file is missing or has faults; the message lists the faults.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.jsonl"
        >>> _ = path.write_text('{"prompt": "Write a poem"}')
        >>> read_texts(path)
        ['Write a poem']
    """
    path = Path(path).expanduser()
    problems: list[Problem] = []
    texts: list[str] = []
    for number, record in _records(read_text(path), problems):
        texts_or_fault = _texts(record)
        if isinstance(texts_or_fault, str):
            problems.append(Problem(number, "", texts_or_fault))
        else:
            texts.extend(texts_or_fault)
    if not texts and not problems:
        problems.append(Problem(1, "", "there are no prompts"))
    raise_problems(path, problems, FORMS)
    return texts


def build_vocabulary(path: str | Path, min_count: int) -> Words:
    """Build a vocabulary from the prompts in a file; see :func:`count_words` and :func:`read_texts`.

    Args:
        path: File of prompts; :data:`FORMS` describes its format.
        min_count: Smallest count with which a lemma is kept.

    Returns:
        The lemmas with their frequencies, most frequent first.

    Raises:
        ConfigError: If the file has faults, ``min_count`` is below 1, or no lemma occurs ``min_count`` times.
    """
    refuse(setting_problems({"min_count": min_count}, {"min_count": Number(1)}))
    words = count_words(read_texts(path), min_count)
    if not len(words):
        raise ConfigError(f"{path}: no word occurs {min_count} times; lower --min-count")
    return words


def _records(text: str, problems: list[Problem]) -> Iterator[tuple[int, Any]]:
    """Yield each record with its number (of the line in JSON Lines); append invalid JSON to ``problems``."""
    if text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), start=1)
        except (ValueError, RecursionError) as error:
            problems.append(Problem(1, "", f"is not valid JSON: {error}"))
        return
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: it splits at U+2028 too
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                problems.append(Problem(number, "", f"is not valid JSON: {error}"))


def _texts(record: Any) -> list[str] | str:
    """Return the texts of a record, or a description of what is wrong with the record."""
    if not isinstance(record, dict):
        return f"expected a JSON object, got {type(record).__name__}"
    for field in ("prompt", "text"):
        if field in record:
            value = record[field]
            return [value] if isinstance(value, str) else f"{field}: expected a text, got {type(value).__name__}"
    turns = record.get("conversations")
    if not isinstance(turns, list):
        return "has neither prompt nor text nor a list of conversations"
    if not all(isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in turns):
        return "conversations: every turn needs from and value, both texts"
    return [turn["value"] for turn in turns if turn.get("from") in ("human", "user")]
