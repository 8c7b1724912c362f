"""Which response tokens of the tuned model the base model would have written too."""
