"""Evidence: comparisons with their null hypothesis, effect size and interval."""

from shiftlens.evidence.analysis import REGIONS, ROLES, Analysis, SaliencyMap, Section
from shiftlens.evidence.density import base_vs_tuned, followed_vs_unfollowed, judge
from shiftlens.evidence.finding import Finding, Group

__all__ = [
    "REGIONS",
    "ROLES",
    "Analysis",
    "Finding",
    "Group",
    "SaliencyMap",
    "Section",
    "base_vs_tuned",
    "followed_vs_unfollowed",
    "judge",
]
