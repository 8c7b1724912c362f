"""Names of the two models of a pair."""

ROLES = ("base", "tuned")
