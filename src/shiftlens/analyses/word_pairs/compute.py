"""What attention heads learned: word pairs of base and tuned, and the verbs in those gained and lost.

The paper's question: did heads take up pairs with instruction verbs (write, explain, ...) rather than with
frequent verbs in general? Its unit is the verb: of the heads whose number of pairs with the verb changed,
the share where it rose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64
from scipy import stats

from shiftlens.models.roles import ROLES
from shiftlens.results.analysis import Section
from shiftlens.results.finding import Finding
from shiftlens.stats.multiple_testing import holm
from shiftlens.stats.two_groups import independent
from shiftlens.weights import verb_counts
from shiftlens.weights.by_layer import HeadPairs, ModelPairs
from shiftlens.weights.depth import depth_parts

KINDS = ("instruction", "general")
PERMUTATIONS = 9999
Verbs = Mapping[str, Mapping[str, Sequence[str]]]
Counts = Int64[np.ndarray, "layers heads verbs"]


def pairs_section(models: Mapping[str, ModelPairs], verbs: Verbs, seed: int = 0) -> Section:
    """Tables and tests of the word pairs of a pair of models.

    Args:
        models: role -> its word pairs, over the same words.
        verbs: ``instruction`` and ``general`` -> verb -> the lower-case words that stand for it.
        seed: of the bootstrap and of permutations.

    Returns:
        Findings ``pairs/instruction_vs_general/all`` and ``.../1`` to ``4`` by quarter of the depth; tables

        - ``word_pairs``: ``role, layer, head, word_a, word_b``;
        - ``head_pairs``: ``layer, head, base, tuned, gained, lost``, numbers of pairs;
        - ``head_verbs``: ``layer, head, verb, kind, base, tuned, gained, lost``, numbers of pairs with a verb,
          for heads that have any;
        - ``verb_shares``: ``verb, kind, layers, share, more, fewer, n``: of the ``n`` heads where the number of
          pairs with the verb changed, the share where it rose; NaN where it changed nowhere.

        Models with different layers or heads have ``word_pairs`` alone, and one finding that says why.

    Example:
        >>> forms, none = ("poem", "write"), np.zeros((0, 2), int)
        >>> base, tuned = (ModelPairs(forms, 1, (0,), {0: [pairs]}) for pairs in (none, np.array([[0, 1]])))
        >>> verbs = {"instruction": {"write": ["write"]}, "general": {}}
        >>> found = pairs_section({"base": base, "tuned": tuned}, verbs)
        >>> found.tables["verb_shares"][["verb", "layers", "share", "n"]].values.tolist()
        [['write', '1', 1.0, 1], ['write', 'all', 1.0, 1]]
    """
    tables = {"word_pairs": word_pairs_table(models)}
    base, tuned = (models[role] for role in ROLES)
    if (base.depth, base.heads, base.forms) != (tuned.depth, tuned.heads, tuned.forms):
        why_not = (
            f"base has {base.depth} layers and {len(base.heads)} heads looked at in each, "
            f"tuned {tuned.depth} and {len(tuned.heads)}"
        )
        nothing = np.zeros(0)
        return Section([_finding("all", nothing, nothing, 0, seed, why_not)], tables)
    counts = _counts(base, tuned, {verb: words for kind in KINDS for verb, words in verbs[kind].items()})
    kinds = {verb: kind for kind in KINDS for verb in verbs[kind]}
    shares = verb_shares(counts["base"], counts["tuned"], kinds, depth_parts(list(base.layers), base.depth))
    tables |= {
        "head_pairs": head_pairs_table(base, tuned),
        "head_verbs": _head_verbs(base, counts, kinds),
        "verb_shares": shares,
    }
    return Section(verb_findings(shares, seed), tables)


def word_pairs_table(models: Mapping[str, ModelPairs]) -> pd.DataFrame:
    """Every pair that every head knows: ``role, layer, head, word_a, word_b``."""
    rows = [
        (role, layer, head, pairs)
        for role, model in models.items()
        for layer, heads in model.layers.items()
        for head, pairs in zip(model.heads, heads, strict=True)
    ]
    lengths = [len(pairs) for *_, pairs in rows]
    keys = {name: np.repeat([row[i] for row in rows], lengths) for i, name in ((1, "layer"), (2, "head"))}
    found = np.concatenate([np.zeros((0, 2), np.int64), *(pairs for *_, pairs in rows)])
    columns: dict[str, object] = {
        "role": pd.Categorical(np.repeat([row[0] for row in rows], lengths), categories=list(ROLES)), **keys
    }  # fmt: skip
    forms = next(iter(models.values())).forms
    for i, name in enumerate(("word_a", "word_b")):
        # By number: a million words as text would take a gigabyte.
        used, code = np.unique(found[:, i], return_inverse=True)
        columns[name] = pd.Categorical.from_codes(
            code, categories=pd.Index([forms[i] for i in used.tolist()], dtype=str)
        )
    return pd.DataFrame(columns)


def head_pairs_table(base: ModelPairs, tuned: ModelPairs) -> pd.DataFrame:
    """How many pairs each head has, gained and lost: ``layer, head, base, tuned, gained, lost``."""
    rows = [
        (layer, head, len(before), len(after), len(_without(after, before)), len(_without(before, after)))
        for layer, head, before, after in _heads(base, tuned)
    ]
    return pd.DataFrame(rows, columns=["layer", "head", "base", "tuned", "gained", "lost"])


def verb_shares(
    base: Counts, tuned: Counts, kinds: Mapping[str, str], parts: Mapping[str, Bool[np.ndarray, " layers"]]
) -> pd.DataFrame:
    """Of the heads whose number of pairs with a verb changed, the share where tuning raised it (paper).

    Args:
        base: [layers, heads, verbs] pairs with each verb that each head of the base knows.
        tuned: the same of the tuned model.
        kinds: verb -> ``instruction`` or ``general``, in the order of the last axis.
        parts: name -> which layers it has.

    Returns:
        ``verb, kind, layers, share, more, fewer, n``, see :func:`pairs_section`.
    """
    rows = []
    for name, part in parts.items():
        more = (tuned[part] > base[part]).sum(axis=(0, 1)).tolist()
        fewer = (tuned[part] < base[part]).sum(axis=(0, 1)).tolist()
        for (verb, kind), up, down in zip(kinds.items(), more, fewer, strict=True):
            share = up / (up + down) if up + down else np.nan
            rows.append((verb, kind, name, share, up, down, up + down))
    return pd.DataFrame(rows, columns=["verb", "kind", "layers", "share", "more", "fewer", "n"])


def verb_findings(shares: pd.DataFrame, seed: int = 0) -> list[Finding]:
    """Did tuning raise pairs with instruction verbs in more heads than pairs with general verbs?

    Welch's t-test over verbs, as in the paper, for all layers and for each quarter of the depth; beside it a
    permutation test that assumes no distribution. The quarters are corrected for being several.

    Args:
        shares: table from :func:`verb_shares`.
        seed: of the bootstrap and of permutations.
    """
    found = {}
    for name, rows in shares.groupby("layers", sort=False):
        known = rows[rows["n"] > 0]
        instruction, general = (known.loc[known["kind"] == kind, "share"].to_numpy(float) for kind in KINDS)
        found[str(name)] = _finding(str(name), instruction, general, len(rows) - len(known), seed)
    return [found.pop("all"), *holm(list(found.values()))] if found else []


def _finding(
    part: str,
    instruction: Float[np.ndarray, " _"],
    general: Float[np.ndarray, " _"],
    unchanged: int,
    seed: int,
    why_not: str = "",
) -> Finding:
    result = independent(instruction, general, seed)
    if result.p is not None:
        permuted = stats.permutation_test(
            (instruction, general), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
            vectorized=True, alternative="greater", n_resamples=PERMUTATIONS, rng=np.random.default_rng(seed),
        )  # fmt: skip
        result.p_others["permutation of verbs, one-sided"] = float(permuted.pvalue)
    where = "all layers" if part == "all" else f"quarter {part} of the depth"
    why_not = why_not or result.why_not.replace("samples", "verbs whose pairs changed")
    return replace(result, why_not=why_not).finding(
        name=f"pairs/instruction_vs_general/{part}",
        data="attention heads",
        role="both",
        question=f"Did tuning raise pairs with instruction verbs in more heads than pairs with others? ({where})",
        null="mean share of heads with more pairs after tuning, of the heads that changed: instruction verbs <= "
        "general verbs",
        test="Welch t over verbs, one-sided",
        n=len(instruction) + len(general),
        groups={"instruction": instruction, "general": general},
        notes=[f"left out: {unchanged} verbs whose pairs changed in no head" if unchanged else ""],
    )


def _counts(base: ModelPairs, tuned: ModelPairs, verbs: Mapping[str, Sequence[str]]) -> dict[str, Counts]:
    """[layers, heads, verbs] numbers of pairs with each verb in base and tuned, gained and lost."""
    heads = list(_heads(base, tuned))
    knowledge = {
        "base": [before for *_, before, _ in heads],
        "tuned": [after for *_, after in heads],
        "gained": [_without(after, before) for *_, before, after in heads],
        "lost": [_without(before, after) for *_, before, after in heads],
    }
    shape = (len(base.layers), len(base.heads), len(verbs))
    return {name: verb_counts(pairs, base.forms, verbs).reshape(shape) for name, pairs in knowledge.items()}


def _head_verbs(model: ModelPairs, counts: Mapping[str, Counts], kinds: Mapping[str, str]) -> pd.DataFrame:
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
    """The pairs that are not among others."""
    size = 1 + max(int(pairs.max(initial=0)), int(others.max(initial=0)))
    codes, known = (each[:, 0] * size + each[:, 1] for each in (pairs, others))
    return pairs[~np.isin(codes, known)]
