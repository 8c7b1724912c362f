"""What a tuning changes, measured while it runs."""
