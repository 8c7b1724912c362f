"""The weight views restated in plain numpy from the files of weights, on a small vocabulary with word vectors."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

INSTRUCTION = ["write", "explain", "summarize", "translate", "classify", "list", "describe", "rewrite"]
GENERAL = ["get", "make", "go", "take", "see", "come", "think", "look"]
NOUNS = [
    "poem",
    "story",
    "letter",
    "essay",
    "word",
    "line",
    "text",
    "book",
    "table",
    "number",
    "answer",
    "question",
    "reason",
    "cause",
    "idea",
    "thing",
    "house",
    "tree",
    "river",
    "stone",
    "road",
    "water",
    "fire",
    "light",
    "night",
    "day",
    "morning",
    "evening",
    "summer",
    "winter",
    "spring",
    "autumn",
    "cat",
    "dog",
    "horse",
    "bird",
    "fish",
    "apple",
    "bread",
    "cheese",
    "milk",
    "sugar",
    "coffee",
    "window",
    "door",
]
VOCABULARY = [*INSTRUCTION, *GENERAL, *NOUNS, "Poem"]
COMPONENTS, TOP_WORDS, SHOWN, TOP = 6, 9, 5, 25
ROLES = ("base", "tuned")


def write_words(folder: Path) -> dict[str, Any]:
    """A vocabulary, word vectors in topics (three words have none), two lists of verbs: the group ``words``."""
    rng = np.random.default_rng(5)
    lines = [f"{word}\t{1 / (rank + 1)}" for rank, word in enumerate(VOCABULARY)]
    (folder / "words.tsv").write_text("\n".join(lines))
    topic = rng.permutation(len(VOCABULARY)) % 12
    vectors = rng.normal(size=(12, 20))[topic] + 0.4 * rng.normal(size=(len(VOCABULARY), 20))
    known = [i for i, word in enumerate(VOCABULARY) if word not in ("door", "day", "Poem")]  # poem has one
    np.savez(folder / "vectors.npz", words=np.array(VOCABULARY)[known], vectors=vectors[known].astype(np.float32))
    (folder / "instruction.txt").write_text("\n".join(INSTRUCTION))
    (folder / "general.txt").write_text("\n".join(GENERAL))
    return {
        "vocabulary": str(folder / "words.tsv"), "size": None, "vectors": str(folder / "vectors.npz"),
        "instruction_verbs": str(folder / "instruction.txt"), "general_verbs": str(folder / "general.txt"),
        "inflections": False,
    }  # fmt: skip


# The method, in plain numpy, from the files of weights


def plain_embeddings(lm, table):
    """Mean of the pieces of `` word``; a leading piece that is a bare space is dropped."""
    rows = []
    for word in VOCABULARY:
        ids = lm.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        while lm.tokenizer.convert_ids_to_tokens(ids[0]) == "Ġ":
            ids = ids[1:]
        rows.append(np.mean([table[i] for i in ids], axis=0))
    return np.array(rows)


def plain_weights(folder):
    return {name: tensor.astype(np.float64) for name, tensor in load_file(folder / "model.safetensors").items()}


def plain_concepts(folder, lm, layer):
    """Components [32, width], variance shares, and the cosine of every word with each."""
    weights = plain_weights(folder)
    rows = weights[f"model.layers.{layer}.mlp.down_proj.weight"].T
    _, s, components = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    E = plain_embeddings(lm, weights["lm_head.weight"])
    cosine = np.array([[c @ e / math.sqrt(float(e @ e)) for e in E] for c in components])
    return components, s**2 / (s**2).sum(), cosine


def plain_top(values, top):
    return sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:top]


def plain_vectors(files):
    stored = np.load(files / "vectors.npz")
    found = dict(zip(stored["words"].tolist(), stored["vectors"].astype(np.float64), strict=True))
    vectors = [found.get(word, found.get(word.lower())) for word in VOCABULARY]
    vectors = [None if v is None else v / math.sqrt(float(v @ v)) for v in vectors]
    known = [v for v in vectors if v is not None]  # the vocabulary has fewer than 3,000 words: all are frequent
    cosines = [None if v is None else np.array([v @ f for f in known]) for v in vectors]
    return vectors, [None if c is None else c.mean() + 1.96 * c.std() for c in cosines]


def plain_pairs(folder, lm, files, top=TOP):
    """(layer, head) -> the set of pairs that the head knows."""
    weights, (vectors, threshold) = plain_weights(folder), plain_vectors(files)
    E = plain_embeddings(lm, weights["model.embed_tokens.weight"])
    heads, key_heads, head = 4, 2, 8
    knowledge = {}
    for layer, h in itertools.product(range(2), range(heads)):
        place = f"model.layers.{layer}."
        gain = weights[f"{place}input_layernorm.weight"]
        Wq = weights[f"{place}self_attn.q_proj.weight"][h * head : (h + 1) * head] * gain  # [head, width]
        shared = h // (heads // key_heads)
        Wk = weights[f"{place}self_attn.k_proj.weight"][shared * head : (shared + 1) * head] * gain
        dimensions = {}
        for i in range(head):
            a, b = E @ Wq[i], E @ Wk[i]
            for q, k in itertools.product(plain_top(a, top), plain_top(b, top)):
                pair = frozenset([VOCABULARY[q].lower(), VOCABULARY[k].lower()])
                if vectors[q] is None or vectors[k] is None or a[q] * b[k] <= 0 or len(pair) < 2:
                    continue
                if vectors[q] @ vectors[k] > max(threshold[q], threshold[k]):
                    dimensions.setdefault(pair, set()).add(i)
        knowledge[layer, h] = {pair for pair, found in dimensions.items() if len(found) >= 2}
    return knowledge
