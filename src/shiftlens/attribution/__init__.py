"""Computes exact gradient-times-embedding attributions, and stores them in a ledger."""

from shiftlens.attribution.engine import MODES, TARGETS, Engine, Explained
from shiftlens.attribution.explain_module import BATCH_TOKENS, AttributionModule
from shiftlens.attribution.generate import greedy
from shiftlens.attribution.ledger import Ledger
from shiftlens.attribution.plan.calibration import calibrated
from shiftlens.attribution.plan.cost import Costs
from shiftlens.attribution.plan.memory import parse_budget
from shiftlens.attribution.request import Request
from shiftlens.attribution.row import ATTRIBUTION_VERSION, Row, row_key
from shiftlens.attribution.targets import stored

__all__ = [
    "ATTRIBUTION_VERSION",
    "BATCH_TOKENS",
    "MODES",
    "TARGETS",
    "AttributionModule",
    "Costs",
    "Engine",
    "Explained",
    "Ledger",
    "Request",
    "Row",
    "calibrated",
    "greedy",
    "parse_budget",
    "row_key",
    "stored",
]
