"""Tunes a model on prompts with answers: examples, batches, LoRA, the Lightning module, and the training run."""
