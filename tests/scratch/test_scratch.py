"""Text, tokenizer, model and blocks of pre-training from nothing, each against a statement of its own."""

from __future__ import annotations

import hashlib
import random
import sys

import pytest
import torch
from transformers import AutoTokenizer

from shiftlens.errors import ConfigError
from shiftlens.models.loading import shared_template
from shiftlens.prompts.encode import encode
from shiftlens.prompts.schema import Prompt
from shiftlens.prompts.verifiable import build
from shiftlens.scratch.blocks import blocks, split
from shiftlens.scratch.new_model import make_model
from shiftlens.scratch.prose import docstrings, prose
from shiftlens.scratch.scratch_options import ModelOptions, PretrainOptions, pretrain_options
from shiftlens.scratch.text import corpus_of, from_files, installed
from shiftlens.scratch.tokenizer import make_tokenizer
from shiftlens.tuning.examples import examples

pytestmark = pytest.mark.quick

DOCSTRING = """Sort the rows of a table by one of its columns.

The order of rows with ``equal`` values is kept [1]_; see :func:`other <table.other>`
for the reverse order.

.. versionadded:: 1.2
   This line belongs to a directive and is not kept at all.

Parameters
----------
table : list of dict
    The rows that are to be sorted, each with the *same* columns.
key : str, default: "name"
    Name.

Examples
--------
>>> sort_rows([{"name": "b"}, {"name": "a"}])
[{'name': 'a'}, {'name': 'b'}]

A block of code comes after this sentence of seven words::

    Sort the rows of a table, but as code this is left out.

=====  =====
This   table
is     dropped, whatever words it has in it.
=====  =====

- Every item of a list is a paragraph of its own.
- No more than that can be said here.
1. x = alpha * beta + gamma / delta - 4 ** epsilon.
"""


def test_prose_is_the_sentences_and_nothing_else():
    assert prose(DOCSTRING) == [
        "Sort the rows of a table by one of its columns.",
        "The order of rows with equal values is kept; see other for the reverse order.",
        "The rows that are to be sorted, each with the same columns.",
        "Every item of a list is a paragraph of its own.",
        "No more than that can be said here.",
    ]


def test_docstrings_are_read_in_the_order_of_the_file_and_nothing_is_run():
    source = b'''"""Of the module."""
raise SystemExit("this was run")
class A:
    """Of the class."""
    if True:
        async def f(self):
            """Of the method."""
def g():
    "Of the function."
'''
    assert docstrings(source) == ["Of the module.", "Of the class.", "Of the method.", "Of the function."]
    assert docstrings(b"no python (") == docstrings(b"a\0b") == []


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two documented files, tests, and help topics as Python keeps them."""
    root = tmp_path / "a_documented_package"
    (root / "tests").mkdir(parents=True)
    (root / "__init__.py").write_text('"""This package was made to be read, not run."""\nraise SystemExit')
    (root / "b.py").write_text("topics = {'a': 'The first topic is a long enough sentence.', 'b': 'Too short.'}")
    (root / "a.rst").write_text("Title\n=====\n\nThis file has one sentence that is kept.\n")
    (root / "tests" / "c.py").write_text('"""The tests of a package are not part of its documentation."""')
    monkeypatch.syspath_prepend(str(tmp_path))
    return root.name


def test_installed_documentation_is_read_without_importing(package):
    corpus = installed([package])
    expected = (
        "This package was made to be read, not run.",
        "This file has one sentence that is kept.",
        "The first topic is a long enough sentence.",
    )
    assert corpus.documents == expected
    assert corpus.sha256 == hashlib.sha256("\0".join(expected).encode()).hexdigest()
    assert list(corpus.sources.values()) == [sum(map(len, expected))] == [corpus.chars]
    assert package not in sys.modules
    with pytest.raises(ConfigError, match="no_such_one, nor_this"):
        installed([package, "no_such_one", "nor_this"])


def test_a_paragraph_is_kept_once_and_the_text_ends_where_it_should():
    documents = [("a", ["One two.", "Three."]), ("b", ["one two."]), ("a", ["Four.", "Three."]), ("c", ["Five."])]
    corpus = corpus_of(documents)
    assert corpus.documents == ("One two.\nThree.", "Four.", "Five.")
    assert corpus.sources == {"a": 15 + 5, "c": 5}
    assert corpus_of(documents, max_chars=16).documents == ("One two.\nThree.", "Four.")


def test_own_files_and_all_their_faults_at_once(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffOne\nline.\n\n\n  Ünd  two.\n".encode())
    assert from_files([tmp_path / "a.txt"]).documents == ("One line.\nÜnd two.",)
    (tmp_path / "b.txt").write_bytes(b"abc\xff")
    with pytest.raises(ConfigError) as told:
        from_files([tmp_path / "no.txt", tmp_path / "a.txt", tmp_path / "b.txt"])
    assert "no.txt" in str(told.value) and "b.txt: is not UTF-8 at byte 3" in str(told.value)


WORDS = ["the table has rows and columns", "write the words in order", "a model reads the text"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(WORDS * 5, vocabulary=330, context=128)


def test_the_same_text_gives_the_same_tokenizer(tokenizer):
    again = make_tokenizer(WORDS * 5, vocabulary=330, context=128)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert 260 < len(tokenizer) <= 330


@pytest.mark.parametrize("text", ["Write: 12,5 µm!\n\tнет 名前 🙂", "  two  spaces ", "<|end|> is text too"])
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert tokenizer(text)["input_ids"] == [tokenizer.bos_token_id, *ids]


def test_a_saved_tokenizer_is_the_same_and_its_dialogues_keep_their_spans(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    template = shared_template("auto", loaded)
    assert template == f"jinja:{tokenizer.chat_template}"
    text = "Write the 3 words: ähm, ok"
    encoded = encode(Prompt("a", text, instruction=((0, 17),), context=((19, 26),)), loaded, template)
    names = loaded.convert_ids_to_tokens(list(encoded.input_ids))
    assert names[:2] == ["<|begin|>", "<|user|>"] and names[-1] == "<|assistant|>"
    assert encoded.prompt_index == tuple(range(2, len(names) - 1))
    ids = [encoded.input_ids[i] for i in encoded.prompt_index]
    assert loaded.decode(ids) == text
    marked = [i for i, own in zip(ids, encoded.instruction, strict=True) if own]
    assert loaded.decode(marked) == "Write the 3 words"
    dialogue = [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}]
    whole = loaded.apply_chat_template(dialogue, tokenize=False)
    answered = Prompt("a", text, instruction=((0, 5),), reference="ok")
    assert loaded.decode(examples([answered], loaded, template)[0].ids) == whole


def test_every_task_to_tune_on_fits_the_model_that_is_made_by_default(tokenizer):
    """A tokenizer of a few lines writes nearly every letter apart, so it needs more tokens than the real one."""
    context = PretrainOptions().model.context
    template = shared_template("auto", tokenizer)
    assert len(examples(build("train"), tokenizer, template, context)) == 408


def test_the_model_has_the_weights_its_size_says(tokenizer):
    options = ModelOptions(width=32, layers=3, heads=4, kv_heads=2, feed_forward=48, context=64)
    before = torch.get_rng_state()
    model = make_model(options, tokenizer, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    attention = 2 * 32 * 32 + 2 * 32 * 16  # query and output; key and value of half the heads
    assert model.num_parameters() == len(tokenizer) * 32 + 3 * (attention + 3 * 32 * 48 + 2 * 32) + 32
    same, other = make_model(options, tokenizer, seed=3), make_model(options, tokenizer, seed=4)
    assert torch.equal(same.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(other.lm_head.weight, model.lm_head.weight)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.config.max_position_embeddings == 64
    assert model.config.eos_token_id == tokenizer.eos_token_id


def test_whole_documents_are_set_apart():
    documents = [f"{number} " * (number + 1) for number in range(60)]
    learn, apart = split(documents, 0.1, seed=1)
    assert sorted(learn + apart) == sorted(documents)
    total = sum(map(len, documents))
    assert 0.1 * total <= sum(map(len, apart)) < 0.1 * total + max(map(len, documents))
    assert split(documents, 0.1, seed=1) == (learn, apart) != split(documents, 0.1, seed=2)
    assert [len(side) for side in split(["a", "b"], 0.99, seed=0)] == [1, 1]
    with pytest.raises(ConfigError, match="1 document"):
        split(["a"], 0.5, seed=0)


def test_blocks_are_the_text_in_order(tokenizer):
    documents = [" ".join(WORDS), "the end"]
    stream = []
    for document in documents:
        stream += [0, *tokenizer(document, add_special_tokens=False)["input_ids"], 1]
    found = blocks(documents, tokenizer, 7)
    assert [token for block in found for token in block.ids] == stream[: len(stream) // 7 * 7]
    assert {len(block.ids) for block in found} == {7}
    assert {(block.prompt, block.targets) for block in found} == {(0, 6)}


def test_the_asked_share_of_blocks_says_every_passage_twice(tokenizer):
    draw = random.Random(0)
    # One document for each block, and none repeats by itself: its 30 characters are all different.
    documents = ["".join(draw.sample("bcfgjklpquvxyzBCDEFGHIJKLMNOPQRSTUV", 30)) for _ in range(400)]
    plain = blocks(documents, tokenizer, 32)
    some = blocks(documents, tokenizer, 32, repeats=0.25, seed=5)
    changed = [(a.ids, b.ids) for a, b in zip(plain, some, strict=True) if a != b]
    assert 60 < len(changed) < 140  # 100 expected, standard deviation 8.7
    for before, after in changed:
        assert len(after) == len(before)
        assert _is_said_twice(list(before), list(after)), after
    assert blocks(documents, tokenizer, 32, repeats=0.25, seed=5) == some
    assert blocks(documents, tokenizer, 32, repeats=0.25, seed=6) != some


def _is_said_twice(text, said):
    """Whether some cut of the text into passages of 4 to 24 tokens, each said twice, begins with what was said."""
    if not said:
        return True
    return any(
        said[: 2 * size] == (text[:size] * 2)[: len(said)] and _is_said_twice(text[size:], said[2 * size :])
        for size in range(4, 25)
    )


def test_all_faults_of_the_settings_are_one_error():
    with pytest.raises(ConfigError) as told:
        pretrain_options(
            {
                "text": {"packages": [], "max_chars": 0},
                "model": {"width": 20, "heads": 4, "kv_heads": 3, "vocabulary": 100},
                "block": 4096, "repeats": 2, "held_out": 0,
                "training": {"method": "lora", "rate": -1.0, "batch": 0},
            },
            seed=0,
        )  # fmt: skip
    lines = str(told.value).splitlines()
    keys = [line.split("=")[0].removeprefix("pretrain.") for line in lines]
    assert sorted(keys) == sorted(
        ["text.packages", "text.max_chars", "model.vocabulary", "block", "repeats", "held_out",
         "training.rate", "training.batch"]
    )  # fmt: skip
    with pytest.raises(ConfigError, match="new weights are trained in full"):
        pretrain_options({"training": {"method": "lora"}}, seed=0)
    with pytest.raises(ConfigError, match="pretrain.txet is not known(.|\n)*pretrain.model.size is not known"):
        pretrain_options({"txet": {}, "model": {"size": 3}}, seed=0)
