"""Tokens of a prompt by word, sentence and region."""

from __future__ import annotations

import pytest
from helpers.tiny import tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shiftlens.prompts.encode import encode
from shiftlens.prompts.schema import Prompt
from shiftlens.prompts.units import UNITS, unit_of_tokens

pytestmark = pytest.mark.quick


def by_character(text, template="none", **spans):
    """A prompt whose tokens are its characters, so that the units are those of the characters."""
    core = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate(sorted({*text, *template, "?"}))}, unk_token="?")
    )
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    spans = {"instruction": ((0, len(text)),), **spans}
    return encode(Prompt("p", text, **spans), PreTrainedTokenizerFast(tokenizer_object=core), template)


def texts(encoded, name):
    parts: dict[int, str] = {}
    for unit, token in zip(unit_of_tokens(encoded, name), encoded.tokens, strict=True):
        parts[unit] = parts.get(unit, "") + token
    return list(parts.values())


@pytest.mark.parametrize(
    ("text", "words", "sentences"),
    [
        ("Hi. Go!", ["Hi. ", "Go!"], ["Hi. ", "Go!"]),
        ("a 3.5 b?! c", ["a ", "3.5 ", "b?! ", "c"], ["a 3.5 b?! ", "c"]),
        ('He said "no." Then left', ["He ", "said ", '"no." ', "Then ", "left"], ['He said "no." ', "Then left"]),
        ("one\ntwo\n\nthree", ["one\n", "two\n\n", "three"], ["one\n", "two\n\n", "three"]),
        ("  x  y ", ["  x  ", "y "], ["  x  y "]),
        ("你好。再见", ["你好。再见"], ["你好。", "再见"]),
        ("   ", ["   "], ["   "]),
    ],
)
def test_words_and_sentences(text, words, sentences):
    spaces = by_character(text)
    trailing = [texts(spaces, name) for name in ("word", "sentence")]
    # Spaces belong to the unit before them; here that is written out, so only the division counts.
    for found, expected in zip(trailing, (words, sentences), strict=True):
        assert [part.split() for part in found] == [part.split() for part in expected]
        assert "".join(found) == text


def test_regions_are_numbered_as_they_come_and_the_template_is_outside():
    encoded = by_character("do x", "<{prompt}>", instruction=((0, 2),), context=((3, 4),))
    assert unit_of_tokens(encoded, "region") == (0, 0, 1, 2)
    assert encoded.offsets == ((0, 1), (1, 2), (2, 3), (3, 4))


@pytest.mark.parametrize("name", UNITS)
def test_every_token_has_a_unit_and_no_unit_is_empty(name):
    encoded = encode(Prompt("p", "write a poem . write it", ((0, 5),)), tokenizer(), "none")
    numbers = unit_of_tokens(encoded, name)
    assert len(numbers) == len(encoded.tokens) and set(numbers) == set(range(max(numbers) + 1))
