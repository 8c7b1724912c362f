"""Tiny random models of every supported family: two layers, width 32, 97 ids; built in milliseconds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCAB = 97
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GATED: dict[str, Any] = {**_COMMON, "intermediate_size": 56, "num_key_value_heads": 2}

_CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**_GATED),
    "llama_biased": lambda: LlamaConfig(**_GATED, attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "mistral": lambda: MistralConfig(**_GATED, sliding_window=None),
    "mistral_sliding": lambda: MistralConfig(**_GATED, sliding_window=6),
    "qwen2": lambda: Qwen2Config(**_GATED),
    "qwen3": lambda: Qwen3Config(**_GATED, head_dim=16),
    "gemma": lambda: GemmaConfig(**_GATED, head_dim=16),
    "gemma2": lambda: Gemma2Config(
        **_GATED, head_dim=16, sliding_window=6, attn_logit_softcapping=5.0, final_logit_softcapping=3.0
    ),
    "phi3": lambda: Phi3Config(**_GATED),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**_COMMON, intermediate_size=56),
    "opt": lambda: OPTConfig(
        **{**_COMMON, "pad_token_id": 1}, ffn_dim=56, word_embed_proj_dim=32, do_layer_norm_before=True
    ),
    "opt_projected": lambda: OPTConfig(
        **{**_COMMON, "pad_token_id": 1}, ffn_dim=56, word_embed_proj_dim=16, do_layer_norm_before=True
    ),
}
FAMILIES: tuple[str, ...] = tuple(_CONFIGS)
"""Names :func:`tiny` knows; ``mistral_sliding`` and ``gemma2`` have a window of 6 tokens."""


def tiny(family: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> PreTrainedModel:
    """A random model of `family` in evaluation mode.

    Norm gains and biases are random too (they start as ones and zeros), and weights are larger than at
    the start of training, so that no part of a formula is tested at a point where it does nothing.
    In float64 the RMS norms, which the library computes in float32, are float64 throughout.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_CONFIGS[family](), dtype=torch.float64)
        with torch.no_grad():
            for parameter in model.parameters():
                scale = 0.3 if parameter.ndim == 1 else 0.2
                parameter.add_(scale * torch.randn_like(parameter))
    return (in_float64(model) if dtype == torch.float64 else model.to(dtype)).eval()


def in_float64(model: PreTrainedModel) -> PreTrainedModel:
    """The model in float64 throughout, with the RMS norms and routers that the library computes in float32."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_rms_norm, module)
        elif type(module).__name__.endswith("TopKRouter"):
            module.forward = partial(_route, module)
    return model.double()


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    """The library's RMS norm without its cast to float32; Gemma's gain is 1 + weight, its epsilon `eps`."""
    gain = 1 + module.weight if "Gemma" in type(module).__name__ else module.weight
    epsilon = module.eps if hasattr(module, "eps") else module.variance_epsilon
    return gain * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def _route(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The library's choice of experts without its cast to float32; Mixtral always normalises, others if told to."""
    logits = x.reshape(-1, x.shape[-1]) @ module.weight.T
    weights, experts = logits.softmax(-1).topk(module.top_k)
    if getattr(module, "norm_topk_prob", True):
        weights = weights / weights.sum(-1, keepdim=True)
    return logits, weights, experts


CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer(chat: str | None = CHAT) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few lines; knows every byte."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"]
    lines = [
        "write the words in order",
        "fix the grammar: me and him goes",
        "translate this to French, please",
    ]
    core.train_from_iterator(
        lines * 3,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = chat
    return fast


def save_pair(folder: Path) -> tuple[Path, Path]:
    """A tiny LLaMA and a slightly moved copy of it, as Hugging Face folders."""
    words = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(**{**_GATED, "vocab_size": len(words), "max_position_embeddings": 256})
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in base.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    for name in ("base", "tuned"):
        base.save_pretrained(folder / name)
        words.save_pretrained(folder / name)
        with torch.no_grad():
            for weight in base.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
    return folder / "base", folder / "tuned"
