"""AttnLRP of a LLaMA-type model, written out plainly: its forward pass with the constant factors detached."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel


def _norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    return gain * x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt().detach()


def _half(x: Tensor) -> Tensor:
    return x / 2 + x.detach() / 2


def _capped(x: Tensor, cap: float) -> Tensor:
    return x * (cap * torch.tanh(x / cap) / x).detach()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    one, two = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-two, one], dim=-1) * sin


def relevance(model: PreTrainedModel, input_ids: Tensor, response: int, target: str) -> tuple[Tensor, Tensor]:
    """Relevance [position, response] of every id but the last, and f: one forward and backward for each token.

    LLaMA, Mistral without a window, Qwen 2 and 3, Gemma 1 and 2. Attention is taken head by head and query by query.
    """
    columns, values = [], []
    for position in range(len(input_ids) - response, len(input_ids)):
        embeddings = model.get_input_embeddings()(input_ids[:position]).detach().requires_grad_()
        logits, wanted = _logits(model, embeddings), int(input_ids[position])
        if target == "logit_difference":
            others = logits.clone().detach()
            others[wanted] = -torch.inf
            f = logits[wanted] - logits[others.argmax()]
        else:
            f = torch.log_softmax(logits, -1)[wanted]
        (gradient,) = torch.autograd.grad(f, embeddings)
        found = (gradient * embeddings).sum(-1).detach()
        columns.append(torch.cat([found, found.new_zeros(len(input_ids) - 1 - position)]))
        values.append(f.detach())
    return torch.stack(columns, 1), torch.stack(values)


def _logits(model: PreTrainedModel, x: Tensor) -> Tensor:
    """The logits after the last embedding of [position, width]."""
    config, body = model.config, model.model
    plus = 1.0 if config.model_type.startswith("gemma") else 0.0  # gains are stored as difference from 1
    activation = torch.nn.functional.silu
    if plus:
        activation = lambda g: torch.nn.functional.gelu(g, approximate="tanh")  # noqa: E731
    norm = lambda x, part: _norm(x, plus + part.weight, config.rms_norm_eps)  # noqa: E731
    cap, final_cap = (getattr(config, f"{part}_logit_softcapping", None) for part in ("attn", "final"))
    length = len(x)
    # The library computes angles in float32, whatever the model is in.
    cos, sin = (each[0, :, None] for each in body.rotary_emb(x[None], torch.arange(length)[None]))
    for number, layer in enumerate(body.layers):
        sliding = getattr(config, "layer_types", None) and config.layer_types[number] == "sliding_attention"
        window = config.sliding_window if sliding else length
        y, part = norm(x, layer.input_layernorm), layer.self_attn
        query, key, value = (p(y).view(length, -1, part.head_dim) for p in (part.q_proj, part.k_proj, part.v_proj))
        if hasattr(part, "q_norm"):
            query, key = norm(query, part.q_norm), norm(key, part.k_norm)
        query, key = (_rotate(each, cos, sin) for each in (query, key))
        mixed = []
        for i in range(length):
            for h in range(query.shape[1]):
                group = h // (query.shape[1] // key.shape[1])
                seen = slice(max(0, i + 1 - window), i + 1)
                scores = _half(key[seen, group]) @ _half(query[i, h]) * part.scaling
                weights = torch.softmax(scores if cap is None else _capped(scores, cap), 0)
                mixed.append(_half(weights) @ _half(value[seen, group]))
        attended = part.o_proj(torch.cat(mixed).view(length, -1))
        if has_four := hasattr(layer, "pre_feedforward_layernorm"):
            x = x + norm(attended, layer.post_attention_layernorm)
            y = norm(x, layer.pre_feedforward_layernorm)
        else:
            x = x + attended
            y = norm(x, layer.post_attention_layernorm)
        gate = layer.mlp.gate_proj(y)
        gate = gate * (activation(gate) / gate).detach()
        out = layer.mlp.down_proj(_half(gate) * _half(layer.mlp.up_proj(y)))
        x = x + (norm(out, layer.post_feedforward_layernorm) if has_four else out)
    logits = model.lm_head(norm(x, body.norm))[-1]
    return logits if final_cap is None else _capped(logits, final_cap)
