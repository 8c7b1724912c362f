"""Token shift: response tokens of the tuned model that the base model would not have written."""
