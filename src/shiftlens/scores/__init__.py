"""Computes scores and densities: from raw importance to one number per token and per sample."""

from shiftlens.scores.importance import check_levels, density, instruction_score, score
from shiftlens.scores.instruction_score_metric import InstructionScore
from shiftlens.scores.profile import position_profile, region_mean

__all__ = [
    "InstructionScore",
    "check_levels",
    "density",
    "instruction_score",
    "position_profile",
    "region_mean",
    "score",
]
