"""Exact gradient-times-embedding attribution, and the ledger that keeps it."""

from shiftlens.attribution.engine import MODES, choose, log_gradient
from shiftlens.attribution.generate import greedy, stop_ids
from shiftlens.attribution.ledger import ATTRIBUTION_VERSION, Ledger, Row, row_key
from shiftlens.attribution.module import AttributionModule, Request

__all__ = [
    "ATTRIBUTION_VERSION",
    "MODES",
    "AttributionModule",
    "Ledger",
    "Request",
    "Row",
    "choose",
    "greedy",
    "log_gradient",
    "row_key",
    "stop_ids",
]
