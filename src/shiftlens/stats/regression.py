"""Estimates the effect of T1 or T2 at equal covariates, by least squares."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats
from statsmodels.regression.linear_model import OLS

from shiftlens.stats.contrast import Question
from shiftlens.stats.result import Comparison
from shiftlens.stats.two_groups import ROUNDING, pooled_std, varies


def adjusted(
    question: Question, values: Float[np.ndarray, " records"], covariates: Float[np.ndarray, "records k"]
) -> Comparison:
    """Test the effect at equal covariates, one-sided, by a regression with HC3 standard errors.

    T1 regresses the scores on the group, the covariates and one intercept per data set; the effect is the group's
    coefficient. T2 regresses the differences of a pair's scores on the differences of the pair's covariates and
    on the pair's mean covariates. The mean covariates are centred, so that the intercept is the effect for an
    average prompt whose two responses have equal covariates. Covariates that do not vary are left out.

    Args:
        question: T1 or T2.
        values: [records] Instruction scores.
        covariates: [records, k] Logarithms of lengths.

    Returns:
        One-sided p, t, and the coefficient divided by the pooled standard deviation; no numbers if the data
        cannot separate the effect from the covariates.

    Source:
        HC3: MacKinnon & White 1985.
    """
    high, low = values[question.high], values[question.low]
    plain = question.compare(values)
    if plain.p is None:
        return plain
    if question.paired:
        y, of_interest = high - low, [np.ones(len(high))]
        x_high, x_low = covariates[question.high], covariates[question.low]
        means = (x_high + x_low) / 2
        x = np.concatenate([x_high - x_low, means - means.mean(axis=0)], axis=1)  # [prompts, 2 k]
    else:
        y, x = values[question.used], covariates[question.used]
        levels = [np.array(question.strata) == name for name in dict.fromkeys(question.strata)]
        of_interest = [question.labels, *levels]
        x = x - x.mean(axis=0)
    used = [column for column in x.T if varies(column)]
    # The first column is the effect asked for.
    X = np.stack([*of_interest, *used], axis=1).astype(float)  # [observations, columns]
    if len(y) < X.shape[1] + 2 or np.linalg.matrix_rank(X) < X.shape[1]:
        return Comparison(why_not=f"{len(y)} samples cannot tell the effect from {len(used)} covariates")
    # HC3 divides by one minus the leverage.
    if (np.linalg.qr(X)[0] ** 2).sum(axis=1).max() > 1 - ROUNDING:
        return Comparison(why_not="a sample decides a coefficient by itself")
    fit = OLS(y, X).fit(cov_type="HC3", use_t=True)
    if np.abs(fit.resid).max() <= ROUNDING * np.abs(y).max():
        return Comparison(why_not="the covariates and the effect leave nothing to judge them by")
    coefficient, t = float(fit.params[0]), float(fit.tvalues[0])
    return Comparison(float(stats.t.sf(t, fit.df_resid)), t, coefficient / pooled_std(high, low))
