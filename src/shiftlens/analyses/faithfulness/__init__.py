"""How well the importance ranks prompt tokens, held against exact ablation."""
