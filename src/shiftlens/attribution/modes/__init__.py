"""Ways to compute one and the same gradient: forward, reverse, mixed, naive."""
