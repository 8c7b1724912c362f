"""Faithfulness: compares the ranking of prompt tokens by importance with the ranking by exact ablation."""
