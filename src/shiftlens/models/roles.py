"""Names of the two models of a pair, in the order in which tables and figures show them."""

ROLES = ("base", "tuned")
