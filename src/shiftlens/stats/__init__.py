"""Statistical tests, intervals and corrections; they know numbers and groups only."""
