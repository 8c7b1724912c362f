"""Ranks the words that descriptions of concepts use more, or less, after tuning."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pandas as pd

_FUNCTION_WORDS = """
all and any are but can for from has have include includes including into its like mainly mostly not one ones or
other some such that the their them these this those use used various which who with
"""
_OF_ANNOTATORS = "beginning common concept concepts ending forms near related same share spelled word words"
_NOT_KEYWORDS = frozenset(f"{_FUNCTION_WORDS} {_OF_ANNOTATORS}".split())
_KEYWORD = re.compile(r"[^\W\d_]{3,}")


def keyword_ranks(base: Sequence[str], tuned: Sequence[str]) -> pd.DataFrame:
    """Rank the words of descriptions by how many concepts they describe, base against tuned.

    Args:
        base: Descriptions of the base model's concepts.
        tuned: Descriptions of the tuned model's concepts.

    Returns:
        One row per word of three letters or more, without function words and the annotators' usual phrases:
        ``keyword, base_count, tuned_count, base_rank, tuned_rank, rise``. A word counts once per concept; words
        with equal counts share the mean of their ranks; ``rise`` is the number of ranks that the word rose. The
        largest rise comes first.

    Example:
        >>> ranks = keyword_ranks(["names of towns", "towns"], ["verbs", "verbs of saying", "towns"])
        >>> ranks["keyword"].tolist(), ranks["rise"].tolist()
        (['verbs', 'saying', 'towns', 'names'], [2.5, 1.0, -1.5, -2.0])
    """
    counts = [Counter(word for text in texts for word in _keywords(text)) for texts in (base, tuned)]
    words = sorted(set().union(*counts))
    table = pd.DataFrame({"keyword": pd.Series(words, dtype=str)})
    for role, count in zip(("base", "tuned"), counts, strict=True):
        table[f"{role}_count"] = pd.Series([count[word] for word in words], dtype=int)
    for role in ("base", "tuned"):
        table[f"{role}_rank"] = table[f"{role}_count"].rank(ascending=False, method="average")
    table["rise"] = table["base_rank"] - table["tuned_rank"]
    order = ["rise", "tuned_count", "keyword"]
    return table.sort_values(order, ascending=[False, False, True], ignore_index=True)


def _keywords(text: str) -> set[str]:
    return set(_KEYWORD.findall(text.lower())) - _NOT_KEYWORDS
