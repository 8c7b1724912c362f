"""Parting: what decides between the two models' tokens where their greedy responses part ways."""
