"""Ways to measure the importance of a prompt token."""
