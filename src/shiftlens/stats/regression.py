"""The effect at equal covariates, by least squares."""

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
    """T1: the coefficient of the group beside the covariates. T2: the mean difference where they do not differ.

    In T2 the differences are regressed on the differences of the covariates and on their means over the pair;
    all but the differences are centred, so the intercept is the effect for an average prompt whose two responses
    are of one length. In T1 every data set has a level of its own. Covariates that do not vary are left out.
    Errors are HC3 (MacKinnon & White 1985).

    Args:
        question: T1 or T2.
        values: [records] instruction scores.
        covariates: [records, k] logarithms of lengths.

    Returns:
        One-sided p, t, and the coefficient over the pooled standard deviation; no numbers where the
        coefficient cannot be told from the covariates.
    """
    high, low = values[question.high], values[question.low]
    plain = question.compare(values)
    if plain.p is None:
        return plain
    if question.paired:
        y, of_interest = high - low, [np.ones(len(high))]
        x_high, x_low = covariates[question.high], covariates[question.low]
        means = (x_high + x_low) / 2
        x = np.concatenate([x_high - x_low, means - means.mean(axis=0)], axis=1)
    else:
        y, x = values[question.used], covariates[question.used]
        levels = [np.array(question.strata) == name for name in dict.fromkeys(question.strata)]
        of_interest = [question.labels, *levels]
        x = x - x.mean(axis=0)
    used = [column for column in x.T if varies(column)]
    X = np.stack([*of_interest, *used], axis=1).astype(float)
    if len(y) < X.shape[1] + 2 or np.linalg.matrix_rank(X) < X.shape[1]:
        return Comparison(why_not=f"{len(y)} samples cannot tell the effect from {len(used)} covariates")
    # HC3 divides by one less the leverage.
    if (np.linalg.qr(X)[0] ** 2).sum(axis=1).max() > 1 - ROUNDING:
        return Comparison(why_not="a sample decides a coefficient by itself")
    fit = OLS(y, X).fit(cov_type="HC3", use_t=True)
    if np.abs(fit.resid).max() <= ROUNDING * np.abs(y).max():
        return Comparison(why_not="the covariates and the effect leave nothing to judge them by")
    coefficient, t = float(fit.params[0]), float(fit.tvalues[0])
    return Comparison(float(stats.t.sf(t, fit.df_resid)), t, coefficient / pooled_std(high, low))
