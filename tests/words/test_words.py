"""Vocabulary, word embeddings, word vectors and verbs, each against a plain restatement."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import wordfreq
from helpers.reference import FOLDER, needs_reference

from shiftlens.errors import ConfigError
from shiftlens.support.cache_path import cache_dir
from shiftlens.words import (
    count_words,
    frequent_verbs,
    frequent_words,
    general_verbs,
    instruction_verbs,
    lemma,
    lexicon_from_config,
    parts_of_speech,
    read_verbs,
    read_words,
    verb_forms,
    verb_indices,
    write_words,
)
from shiftlens.words.__main__ import main

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
CACHE = cache_dir()


# Vocabulary


def test_frequent_words_are_the_head_of_the_list_without_what_is_no_word():
    words = frequent_words(5000)
    want = []
    for word in wordfreq.top_n_list("en", 6000):
        if re.fullmatch(r"[^\W\d_]{2,}|[ai]", word) and len(want) < 5000:
            want.append(word)
    assert list(words.words) == want
    for row in (0, 1, 77, 4999):
        assert words.frequency[row] == pytest.approx(wordfreq.word_frequency(words.words[row], "en"), rel=1e-2)
    assert (np.diff(words.frequency) <= 0).all()
    assert len(frequent_words()) == len(set(frequent_words().words)) == 20_000


def test_words_to_include_take_the_place_of_the_rarest():
    plain, more = frequent_words(1000), frequent_words(1000, ["summarize", "the", "zzzzqq"])
    assert set(more.words) - set(plain.words) == {"summarize"}
    assert set(plain.words) - set(more.words) == {plain.words[-1]}
    assert more.words[-1] == "summarize"
    assert (np.diff(more.frequency) <= 0).all()
    with pytest.raises(ConfigError, match=r"words.size=0: expected 1 to \d+"):
        frequent_words(0)


@needs_reference
def test_the_published_vocabulary_is_read_as_it_is():
    path = FOLDER / "sharegpt_vocabulary.tsv"
    pairs = [line.split("\t") for line in path.read_bytes().decode().split("\n") if line]
    words = read_words(path)
    assert list(words.words) == [word for word, _ in pairs]  # it is in order of frequency
    assert words.frequency.tolist() == [float(value) for _, value in pairs]
    assert read_words(path, 3000).words == words.words[:3000]


def test_words_survive_writing_and_reading(tmp_path):
    words = frequent_words(300)
    write_words(words, tmp_path / "w.tsv")
    again = read_words(tmp_path / "w.tsv")
    assert again.words == words.words
    assert again.frequency.tolist() == words.frequency.tolist()


def test_csv_has_quotes_and_a_header_and_tsv_has_neither(tmp_path):
    (tmp_path / "w.csv").write_text('Word,Frequency\n",",3\n"say ""hi""",5\n\nword,4\n')
    assert read_words(tmp_path / "w.csv").words == ('say "hi"', "word", ",")
    (tmp_path / "w.tsv").write_bytes(b'\xef\xbb\xbfword\t3\r\n"\t2\r\n\xe2\x80\xa8x\t1\r\n')
    assert read_words(tmp_path / "w.tsv").words == ("word", '"', "x")


def test_all_faults_of_a_vocabulary_are_told_at_once(tmp_path):
    path = tmp_path / "w.tsv"
    path.write_text("a\t1\nb\n\t2\nc\tmany\na\t3\nd\tnan\ne\t-1\n")
    with pytest.raises(ConfigError) as caught:
        read_words(path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("w.tsv: 6 problems")
    assert [re.search(r"row (\d)", line)[1] for line in lines[1:-1]] == ["2", "3", "4", "5", "6", "7"]
    path.write_text("x\n" * 80)
    with pytest.raises(ConfigError, match="and 30 more"):
        read_words(path)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="there are no words"):
        read_words(path)
    path.write_bytes(b"a\t1\n\xff\t2\n")
    with pytest.raises(ConfigError, match="line 2: is not UTF-8"):
        read_words(path)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_words(tmp_path / "none.tsv")


# A vocabulary from prompts


def test_a_vocabulary_is_built_from_conversations(tmp_path, capsys):
    human = ["Write a poem about dogs!", "She was WRITING poems; don't rewrite 3 of them.", "The dog writes"]
    talk = [
        {
            "conversations": [
                {"from": "human", "value": human[0]},
                {"from": "gpt", "value": "Gladly gladly gladly"},
            ]
        },
        {"conversations": [{"from": "user", "value": human[1]}]},
        {"conversations": []},
        {"prompt": human[2]},
    ]
    # Counted by hand: forms -> dictionary forms; don't and 3 are no words.
    want = Counter(
        write=3, a=1, poem=2, about=1, dog=2, she=1, be=1, rewrite=1, of=1, them=1, the=1
    )  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps(talk))
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(record) for record in talk))
    for name in ("t.json", "t.jsonl"):
        assert main(["build", str(tmp_path / name), "--out", str(tmp_path / "w.tsv"), "--min-count", "2"]) == 0
        assert "3 words in" in capsys.readouterr().out
        built = read_words(tmp_path / "w.tsv")
        assert built.words == ("write", "dog", "poem")
        np.testing.assert_allclose(built.frequency, np.array([3, 2, 2]) / want.total())
    assert dict(
        zip(*[(w := count_words(human, 1)).words, w.frequency * want.total()], strict=True)
    ) == pytest.approx(dict(want))


def test_all_faults_of_prompt_files_are_told_at_once(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": 3}\n{"prompt": "fine"}\n[1]\n{"conversations": [{"from": "human"}]}\n{}\n{"pro')
    assert main(["build", str(path), "--out", str(tmp_path / "w.tsv")]) == 1
    told = capsys.readouterr().err
    assert "5 problems" in told
    assert re.findall(r"row (\d)", told) == ["1", "3", "4", "5", "6"]
    assert not (tmp_path / "w.tsv").exists()
    path.write_text('{"prompt": "fine"}')
    assert main(["build", str(path), "--out", str(tmp_path / "w.tsv")]) == 1
    assert "lower --min-count" in capsys.readouterr().err


def test_parts_of_speech_and_forms():
    assert parts_of_speech("Write") == {"VERB"}
    assert parts_of_speech("dogs") >= {"NOUN"}
    assert parts_of_speech("quickly") == {"ADV"}
    assert parts_of_speech("qqzzx") == frozenset()
    assert verb_forms("go") == ("go", "goes", "going", "gone", "went")
    assert verb_forms("qqzzx") == ("qqzzx",)
    assert [lemma(word) for word in ("children", "went", "us", "qqzzx")] == ["child", "go", "us", "qqzzx"]


# Verbs


def test_the_verb_list_is_made_again_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make_verbs.py", "--out", str(tmp_path / "verbs.txt")])
    runpy.run_path(str(ROOT / "scripts" / "make_verbs.py"), run_name="__main__")
    shipped = ROOT / "src" / "shiftlens" / "assets" / "words" / "general_verbs.txt"
    assert (tmp_path / "verbs.txt").read_bytes() == shipped.read_bytes()


def test_the_lists_are_two_kinds_of_verbs():
    instruction, general = instruction_verbs(), general_verbs()
    assert {"write", "explain", "summarize", "translate", "classify"} <= set(instruction)
    assert 50 <= len(instruction) <= 70 and len(general) == 200
    assert not set(instruction) & set(general)
    assert not set(general) & {"be", "do", "have", "can", "will", "time", "people", "way", "thing"}
    for verb in (*instruction, *general):
        assert "VERB" in parts_of_speech(verb)
        assert len(verb_forms(verb)) >= 3


def test_verbs_rank_by_their_rarest_form():
    def share(*spellings):
        return max(wordfreq.word_frequency(form, "en") for form in spellings)

    by_hand = {
        "go": min(share("go"), share("went"), share("going")),
        "write": min(share("write"), share("wrote"), share("writing")),
        "build": min(share("build"), share("built", "builded"), share("building")),
        "time": min(share("time"), share("timed"), share("timing")),
        "people": min(share("people"), share("peopled"), share("peopling")),
    }
    ranks = frequent_verbs(900, [])
    order = sorted(by_hand, key=by_hand.get, reverse=True)
    assert order[-1] == "people"
    assert [verb for verb in ranks if verb in by_hand] == [verb for verb in order if verb in ranks]
    assert set(order) - set(ranks) <= {"people"}
    assert frequent_verbs(5, ranks[:3]) == ranks[3:8]


def test_a_verb_stands_for_itself_or_for_all_its_forms():
    words = ["Write", "written", "the", "write", "find", "found"]
    plain = verb_indices(["write", "find", "sing"], words)
    assert {verb: rows.tolist() for verb, rows in plain.items()} == {"write": [0, 3], "find": [4], "sing": []}
    forms = verb_indices(["write", "found"], words, inflections=True)
    assert {verb: rows.tolist() for verb, rows in forms.items()} == {"write": [0, 1, 3], "found": [5]}


def test_faults_of_a_verb_list_are_told_at_once(tmp_path):
    path = tmp_path / "verbs.txt"
    path.write_text("# mine\nWrite  # the first\nwriting\n\nwrite\ngiraffe\n")
    with pytest.raises(ConfigError) as caught:
        read_verbs(path)
    assert re.findall(r"row (\d)", str(caught.value)) == ["3", "5", "6"]
    path.write_text("# none\n")
    with pytest.raises(ConfigError, match="there are no verbs"):
        read_verbs(path)


# The configuration group


def test_an_empty_group_is_the_default_lexicon():
    lexicon = lexicon_from_config({}, CACHE)
    assert len(lexicon.words) == 20_000
    assert lexicon.vectors_source == "glove"
    for verbs in (lexicon.instruction, lexicon.general):
        for verb, rows in verbs.items():  # every verb is in the vocabulary, and stands for itself alone
            assert [lexicon.words.words[row] for row in rows] == [verb]


def test_a_lexicon_of_your_own_files(tmp_path):
    (tmp_path / "w.tsv").write_text("writes\t3\nwrite\t2\nsing\t1\nrare\t0\n")
    (tmp_path / "i.txt").write_text("write\n")
    (tmp_path / "g.txt").write_text("sing\n")
    (tmp_path / "v.txt").write_text("write 1 0\nsing 0 1\n")
    lexicon = lexicon_from_config(
        {
            "vocabulary": str(tmp_path / "w.tsv"), "size": 3, "vectors": str(tmp_path / "v.txt"), "inflections": True,
            "instruction_verbs": str(tmp_path / "i.txt"), "general_verbs": str(tmp_path / "g.txt"),
        },
        tmp_path,
    )  # fmt: skip
    assert lexicon.words.words == ("writes", "write", "sing")
    assert lexicon.instruction["write"].tolist() == [0, 1] and lexicon.general["sing"].tolist() == [2]
    np.testing.assert_array_equal(lexicon.unit, [[np.nan, np.nan], [1, 0], [0, 1]])
    np.testing.assert_allclose(lexicon.threshold, [np.nan, 0.5 + 0.98, 0.5 + 0.98])


def test_faults_of_the_group_are_told_at_once(tmp_path):
    (tmp_path / "g.txt").write_text("write\nsing\n")
    with pytest.raises(ConfigError) as caught:
        lexicon_from_config(
            {
                "vocabulary": str(tmp_path / "none.tsv"), "size": "many", "vectors": "nowhere.txt",
                "general_verbs": str(tmp_path / "g.txt"), "inflections": "perhaps",
            },
            tmp_path,
        )  # fmt: skip
    told = str(caught.value).splitlines()
    keys = ["size", "inflections", "vectors", "general_verbs", "vocabulary"]
    assert [line.removeprefix("words.").split(" ")[0].split("=")[0].rstrip(":") for line in told] == keys
    assert "write are among the instruction verbs too" in told[3]
