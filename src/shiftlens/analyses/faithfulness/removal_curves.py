"""Removes prompt tokens in the order of their importance and measures what the response loses on the way.

*Deletion* removes the most important tokens first, *insertion* keeps them and removes the rest. What deletion of a
share of the tokens costs is the comprehensiveness of the importance at that share, what is lost where only that
share is kept is its sufficiency. Every method removes the same number of tokens, so that none gains by marking
more.

Source: Petsiuk et al. 2018 (RISE) for the curves; DeYoung et al. 2020 (ERASER) for the two measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

WHOLE = -1
"""Position that stands for the whole response."""
CURVES = ("deletion", "insertion")
Order = tuple[str, int]
"""A method's label, and the response position by whose importance the tokens are ordered, or :data:`WHOLE`."""


def ordered(importance: Float[np.ndarray, " prompt"]) -> Int[np.ndarray, " prompt"]:
    """Order the prompt tokens from most to least important; of equal ones the earlier is first.

    Args:
        importance: [prompt] Importance; negative values rank below 0.

    Example:
        >>> ordered(np.array([0.5, -2.0, 0.5, 3.0])).tolist()
        [3, 0, 2, 1]
    """
    return np.argsort(-importance, kind="stable")


def kept_count(tokens: int, share: float) -> int:
    """Return how many of some tokens make up a share, rounded up.

    Example:
        >>> kept_count(30, 0.1), kept_count(31, 0.1)
        (3, 4)
    """
    return math.ceil(share * tokens - 1e-9)  # 0.07 * 100 is more than 7 in floating point


def removed_tokens(
    importance: Float[np.ndarray, " prompt"], shares: Sequence[float]
) -> dict[tuple[str, float], tuple[int, ...]]:
    """List the tokens that are removed at each point of the two curves, their ends included.

    Args:
        importance: [prompt] Importance that orders the tokens.
        shares: Shares of the tokens between 0 and 1.

    Returns:
        Curve and share -> sorted indices of the removed tokens.

    Example:
        >>> found = removed_tokens(np.array([1.0, 3.0, 2.0]), [0.3])
        >>> found["deletion", 0.3], found["insertion", 0.3], found["insertion", 1.0]
        ((1,), (0, 2), ())
    """
    order = ordered(importance)
    points = {}
    for share in (0.0, *shares, 1.0):
        count = kept_count(len(order), share)
        points["deletion", share] = tuple(sorted(order[:count].tolist()))
        points["insertion", share] = tuple(sorted(order[count:].tolist()))
    return points


def distinct_sets(
    orders: Mapping[Order, Float[np.ndarray, " prompt"]], shares: Sequence[float]
) -> tuple[tuple[int, ...], ...]:
    """List every set of tokens that the curves of one prompt remove, each once; the empty set is left out.

    Args:
        orders: Importance by which each pair of curves orders the tokens, [prompt] each.
        shares: Shares of the tokens between 0 and 1.

    Example:
        >>> distinct_sets({("a", WHOLE): np.array([1.0, 2.0]), ("b", WHOLE): np.array([5.0, 6.0])}, [0.5])
        ((0, 1), (1,), (0,))
    """
    sets = (places for importance in orders.values() for places in removed_tokens(importance, shares).values())
    return tuple(places for places in dict.fromkeys(sets) if places)


def curve_points(
    orders: Mapping[Order, Float[np.ndarray, " prompt"]],
    shares: Sequence[float],
    losses: Float[np.ndarray, "sets response"],
    log_probability: Float[np.ndarray, " response"],
    is_probability: bool = True,
) -> pd.DataFrame:
    """Read the points of all curves of one prompt off the losses of the sets that they remove.

    Args:
        orders: Importance by which each pair of curves orders the tokens, [prompt] each.
        shares: Shares of the tokens between 0 and 1.
        losses: [sets, response] What the target of each response token loses without each of
            :func:`distinct_sets`: nats of log p, or logits.
        log_probability: [response] log p of each response token after the full prompt.
        is_probability: Whether the losses are those of log p.

    Returns:
        ``method, position, curve, share, removed, change, p``: ``change`` is the mean change of the target against
        the full prompt, over the response or at ``position``; ``p`` the mean probability, NaN for logits.
    """
    sets, rows = distinct_sets(orders, shares), []
    by_set = dict(zip(sets, losses.astype(float), strict=True)) | {(): np.zeros(len(log_probability))}
    for (method, position), importance in orders.items():
        columns = slice(None) if position == WHOLE else slice(position, position + 1)
        for (curve, share), places in removed_tokens(importance, shares).items():
            lost = by_set[places][columns]
            p = np.exp(log_probability[columns] - lost).mean() if is_probability else np.nan
            rows.append((method, position, curve, share, len(places), -lost.mean(), p))
    return pd.DataFrame(rows, columns=["method", "position", "curve", "share", "removed", "change", "p"])


def curve_metrics(points: pd.DataFrame) -> pd.DataFrame:
    """Sum up the curves of each response: area, comprehensiveness and sufficiency.

    Args:
        points: Rows of :func:`curve_points` with the further columns ``role, dataset, id``.

    Returns:
        ``role, dataset, id, method, scope, metric, at, measure, value``. ``scope`` is ``response`` (ordered by the
        importance for the whole response) or ``token`` (mean over the sampled response tokens); ``measure`` is
        ``change`` or ``p``. The metrics ``deletion`` and ``insertion`` are areas (trapezoids over the share);
        ``comprehensiveness`` and ``sufficiency`` are what the response loses ``at`` a share, and ``mean`` over all
        shares between 0 and 1.
    """
    long = points.melt(
        ["role", "dataset", "id", "method", "position", "curve", "share"], ["change", "p"], "measure"
    ).dropna(subset="value")
    keys = ["role", "dataset", "id", "method", "position", "measure", "curve"]
    rows = []
    for key, curve in long.groupby(keys, sort=False):
        at = curve.set_index("share")["value"].sort_index()
        # Deletion begins with the full prompt, insertion ends with it.
        full = at.loc[0.0 if key[-1] == "deletion" else 1.0]
        inner = at.iloc[1:-1]
        metric = "comprehensiveness" if key[-1] == "deletion" else "sufficiency"
        rows.append((*key, key[-1], "", float(np.trapezoid(at, at.index))))
        rows += [(*key, metric, f"{share:g}", full - value) for share, value in inner.items()]
        rows.append((*key, metric, "mean", full - inner.mean()))
    table = pd.DataFrame(rows, columns=[*keys, "metric", "at", "value"])
    table["scope"] = np.where(table["position"] == WHOLE, "response", "token")
    by = ["role", "dataset", "id", "method", "scope", "metric", "at", "measure"]
    return table.groupby(by, sort=False)["value"].mean().reset_index()
