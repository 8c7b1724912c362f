"""Makes a small LLaMA with random weights."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from shiftlens.scratch.scratch_options import ModelOptions


def make_model(options: ModelOptions, tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """Make a LLaMA with random float32 weights and a shared input and output embedding.

    Args:
        options: Size of the model.
        tokenizer: Tokenizer of the model; determines the number of embeddings and the special ids.
        seed: Random seed for the weights; the random state of the process is not changed.

    Returns:
        The model, on the CPU.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        intermediate_size=options.feed_forward,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads,
        max_position_embeddings=options.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).float()
