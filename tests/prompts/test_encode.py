"""Exact ids and span masks through templates."""

from __future__ import annotations

import pytest
from helpers.tiny import tokenizer
from tokenizers import processors

from shiftlens.errors import ConfigError
from shiftlens.prompts import EncodeError, Prompt, encode
from shiftlens.prompts.encode import _mend_offsets, token_texts

pytestmark = pytest.mark.quick

TEXT = "Fix the grammar: me and him goes"
PROMPT = Prompt("a", TEXT, ((0, 16),), ((17, 32),))


def jinja(words):
    return f"jinja:{words.chat_template}"


def test_chat_template_ids_are_those_of_the_library():
    words = tokenizer()
    encoded = encode(PROMPT, words, jinja(words))
    message = [{"role": "user", "content": TEXT}]
    want = words.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert list(encoded.input_ids) == want
    assert words.decode([encoded.input_ids[i] for i in encoded.prompt_index]) == TEXT


@pytest.mark.parametrize("template", ["none", "Say {prompt} now", "chat"])
def test_spans_cover_their_words_and_nothing_else(template):
    words = tokenizer()
    encoded = encode(PROMPT, words, jinja(words) if template == "chat" else template)
    ids = [encoded.input_ids[i] for i in encoded.prompt_index]
    for mask, (start, end) in ((encoded.instruction, (0, 16)), (encoded.context, (17, 32))):
        touched = words.decode([i for i, m in zip(ids, mask, strict=True) if m])
        assert TEXT[start:end] in touched
        assert len(touched) <= end - start + 1  # at most the space a word starts with
    assert "".join(encoded.tokens) == TEXT
    assert "template" not in encoded.regions


def test_a_prompt_that_also_stands_in_the_template_is_found_in_its_own_place():
    words = tokenizer()
    encoded = encode(Prompt("a", "user", ((0, 4),)), words, "user says: {prompt} end user")
    before = len(words("user says: ")["input_ids"])
    assert encoded.prompt_index[0] in (before, before - 1)


def test_templates_that_trim_the_message_move_the_spans():
    words = tokenizer(chat="<|user|>{{ messages[0]['content'] | trim }}<|end|>")
    encoded = encode(Prompt("a", "  Fix it  ", ((2, 5),)), words, jinja(words))
    marked = [token for token, hit in zip(encoded.tokens, encoded.instruction, strict=True) if hit]
    assert "".join(marked) == "Fix"


def test_templates_that_rewrite_or_drop_the_message_are_refused():
    upper = tokenizer(chat="{{ messages[0]['content'] | upper }}")
    with pytest.raises(ConfigError, match="rewrites the user's message"):
        encode(PROMPT, upper, jinja(upper))
    deaf = tokenizer(chat="<|user|>hello")
    with pytest.raises(ConfigError, match="does not write the user's message"):
        encode(PROMPT, deaf, jinja(deaf))


def bos_adding():
    words = tokenizer()
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", words.bos_token_id)]
    )
    return words


def test_bos_is_added_once(caplog):
    words = bos_adding()
    plain = encode(PROMPT, words, "none")
    assert plain.input_ids[0] == words.bos_token_id
    assert plain.prompt_index[0] == 1
    doubled = encode(PROMPT, words, "<s>{prompt}")
    assert doubled.input_ids[:2].count(words.bos_token_id) == 1
    assert "BOS" in caplog.text
    assert words.decode([doubled.input_ids[i] for i in doubled.prompt_index]) == TEXT


def test_bytes_of_one_character_all_belong_to_its_span():
    words = tokenizer()
    encoded = encode(Prompt("a", "go 語 go", ((3, 4),)), words, "none")
    ids = [i for i, m in zip(encoded.input_ids, encoded.instruction, strict=True) if m]
    assert words.decode(ids).strip() == "語"
    assert len(ids) >= 3


def test_zero_width_offsets_are_mended():
    """A special token in front, three zero-width tokens, a special token at the end."""
    offsets = [(0, 0), (0, 0), (3, 3), (4, 4), (0, 0)]
    assert _mend_offsets(offsets, 8) == [(0, 0), (0, 3), (3, 4), (4, 8), (8, 8)]
    assert _mend_offsets([(0, 0), (0, 3), (3, 5)], 5) == [(0, 0), (0, 3), (3, 5)]


def test_long_prompts_are_refused_or_cut_with_a_record():
    words = tokenizer()
    prompt = Prompt("a", "Fix the grammar: " + "words " * 50, ((0, 16),))
    with pytest.raises(EncodeError, match="data.on_long=cut"):
        encode(prompt, words, jinja(words), max_tokens=30)
    whole = encode(prompt, words, jinja(words))
    cut = encode(prompt, words, jinja(words), max_tokens=30, on_long="cut")
    assert len(cut.input_ids) == 30
    assert cut.cut == len(whole.input_ids) - 30
    assert cut.input_ids[-3:] == whole.input_ids[-3:]  # the template's end stays
    assert cut.tokens == whole.tokens[: len(cut.tokens)]


def test_a_span_lost_by_the_cut_is_an_error():
    words = tokenizer()
    text = "words " * 50 + "fix it"
    prompt = Prompt("a", text, ((300, 306),))
    with pytest.raises(EncodeError, match="was lost when"):
        encode(prompt, words, jinja(words), max_tokens=30, on_long="cut")


def test_token_texts_read_back_as_the_text():
    words = tokenizer()
    assert "".join(token_texts(words, words("write the words")["input_ids"])) == "write the words"
