"""Results as plain data: findings, verdicts, sections and the whole analysis."""
