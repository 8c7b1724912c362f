"""Instruction tuning: dialogues, batches, LoRA, the Lightning module and its run."""
