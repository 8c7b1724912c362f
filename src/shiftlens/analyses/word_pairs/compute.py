"""Builds the tables of the word pairs of base and tuned attention heads, and of the verbs in these pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from shiftlens.models.roles import ROLES
from shiftlens.weights import verb_counts
from shiftlens.weights.by_layer import HeadPairs, ModelPairs

KINDS = ("instruction", "general")
PERMUTATIONS = 9999
Verbs = Mapping[str, Mapping[str, Sequence[str]]]
Counts = Int64[np.ndarray, "layers heads verbs"]


def word_pairs_table(models: Mapping[str, ModelPairs]) -> pd.DataFrame:
    """Build the table of all pairs of all heads: ``role, layer, head, word_a, word_b``.

    Args:
        models: Word pairs of the model of each role, over the same words.
    """
    rows = [
        (role, layer, head, pairs)
        for role, model in models.items()
        for layer, heads in model.layers.items()
        for head, pairs in zip(model.heads, heads, strict=True)
    ]
    lengths = [len(pairs) for *_, pairs in rows]
    keys = {name: np.repeat([row[i] for row in rows], lengths) for i, name in ((1, "layer"), (2, "head"))}
    all_pairs = np.concatenate([np.zeros((0, 2), np.int64), *(pairs for *_, pairs in rows)])  # [all pairs, 2]
    columns: dict[str, object] = {
        "role": pd.Categorical(np.repeat([row[0] for row in rows], lengths), categories=list(ROLES)), **keys
    }  # fmt: skip
    forms = next(iter(models.values())).forms
    for i, name in enumerate(("word_a", "word_b")):
        # As categories, because a million words as text would take a gigabyte.
        used, code = np.unique(all_pairs[:, i], return_inverse=True)
        columns[name] = pd.Categorical.from_codes(
            code, categories=pd.Index([forms[i] for i in used.tolist()], dtype=str)
        )
    return pd.DataFrame(columns)


def head_pairs_table(base: ModelPairs, tuned: ModelPairs) -> pd.DataFrame:
    """Count the pairs that each head has, gained and lost: ``layer, head, base, tuned, gained, lost``."""
    rows = [
        (layer, head, len(before), len(after), len(_without(after, before)), len(_without(before, after)))
        for layer, head, before, after in _heads(base, tuned)
    ]
    return pd.DataFrame(rows, columns=["layer", "head", "base", "tuned", "gained", "lost"])


def verb_shares(
    base: Counts, tuned: Counts, kinds: Mapping[str, str], parts: Mapping[str, Bool[np.ndarray, " layers"]]
) -> pd.DataFrame:
    """Compute, of the heads whose number of pairs with a verb changed, the share where tuning raised it (paper).

    Args:
        base: [layers, heads, verbs] number of pairs with each verb in each head of the base model.
        tuned: [layers, heads, verbs] number of pairs with each verb in each head of the tuned model.
        kinds: ``instruction`` or ``general`` for each verb, in the order of the last axis.
        parts: [layers] mask of the layers of each part of the depth, by name.

    Returns:
        ``verb, kind, layers, share, more, fewer, n``; ``share`` is NaN where the number changed in no head.
    """
    rows = []
    for name, in_part in parts.items():
        more = (tuned[in_part] > base[in_part]).sum(axis=(0, 1)).tolist()
        fewer = (tuned[in_part] < base[in_part]).sum(axis=(0, 1)).tolist()
        for (verb, kind), up, down in zip(kinds.items(), more, fewer, strict=True):
            share = up / (up + down) if up + down else np.nan
            rows.append((verb, kind, name, share, up, down, up + down))
    return pd.DataFrame(rows, columns=["verb", "kind", "layers", "share", "more", "fewer", "n"])


def verb_counts_by_head(
    base: ModelPairs, tuned: ModelPairs, verbs: Mapping[str, Sequence[str]]
) -> dict[str, Counts]:
    """Count the pairs with each verb in each head of base and tuned, and those gained and lost.

    Args:
        base: Word pairs of the base model.
        tuned: Word pairs of the tuned model, over the same words, layers and heads.
        verbs: Lower-case words that stand for each verb.

    Returns:
        [layers, heads, verbs] counts ``base``, ``tuned``, ``gained`` and ``lost``.
    """
    heads = list(_heads(base, tuned))
    knowledge = {
        "base": [before for *_, before, _ in heads],
        "tuned": [after for *_, after in heads],
        "gained": [_without(after, before) for *_, before, after in heads],
        "lost": [_without(before, after) for *_, before, after in heads],
    }
    shape = (len(base.layers), len(base.heads), len(verbs))
    return {name: verb_counts(pairs, base.forms, verbs).reshape(shape) for name, pairs in knowledge.items()}


def head_verbs_table(model: ModelPairs, counts: Mapping[str, Counts], kinds: Mapping[str, str]) -> pd.DataFrame:
    """Build the table of the numbers of pairs with each verb, for heads that have any.

    Columns: ``layer, head, verb, kind, base, tuned, gained, lost``.

    Args:
        model: One of the two models, for the numbers of its layers and heads.
        counts: Counts from :func:`verb_counts_by_head`.
        kinds: ``instruction`` or ``general`` for each verb, in the order of the last axis of ``counts``.
    """
    layer, head, verb = np.nonzero(counts["base"] + counts["tuned"])
    names = np.array(list(kinds), dtype=object)[verb]
    columns = {
        "layer": np.array(list(model.layers), int)[layer],
        "head": np.array(model.heads, int)[head],
        "verb": names,
        "kind": [kinds[name] for name in names],
    }
    return pd.DataFrame(columns | {name: values[layer, head, verb] for name, values in counts.items()})


def _heads(base: ModelPairs, tuned: ModelPairs) -> Iterator[tuple[int, int, HeadPairs, HeadPairs]]:
    for layer, heads in base.layers.items():
        for head, before, after in zip(base.heads, heads, tuned.layers[layer], strict=True):
            yield layer, head, before, after


def _without(pairs: HeadPairs, others: HeadPairs) -> HeadPairs:
    """Return the pairs that are not among the other pairs."""
    size = 1 + max(int(pairs.max(initial=0)), int(others.max(initial=0)))
    codes, known = (each[:, 0] * size + each[:, 1] for each in (pairs, others))
    return pairs[~np.isin(codes, known)]
