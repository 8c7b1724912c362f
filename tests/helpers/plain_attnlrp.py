"""AttnLRP on LLaMA-type layers, written plainly: a whole model in which autograd's gradient *is* the relevance rule.

Constants are detached and shared products divided: ``x / k + (x - x / k).detach()`` has the value of x and 1/k of
its gradient. One forward and one backward pass per response token; nothing is shared, cached or batched.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def plain_attnlrp(
    model: PreTrainedModel, input_ids: Tensor, sources: Tensor, response: int, baseline: Tensor | float = 0.0
) -> Tensor:
    """R[n, m] = <LRP(log p(y_m)) at E[s_n], E[s_n] - baseline>, [sources, response]."""
    columns = []
    for position in range(len(input_ids) - response, len(input_ids)):
        embeddings = model.get_input_embeddings().weight[input_ids[:position]].detach().requires_grad_()
        logits = model.lm_head(body(model, embeddings)[-1])
        (gradient,) = torch.autograd.grad(logits.log_softmax(-1)[input_ids[position]], embeddings)
        relevance = (gradient * (embeddings.detach() - baseline)).sum(-1)
        relevance = torch.cat([relevance, relevance.new_zeros(len(input_ids) - position)])
        columns.append(relevance[sources])
    return torch.stack(columns, dim=1)


def body(model: Any, x: Tensor) -> Tensor:
    """Hidden states, [positions, width], of embeddings x; equal to the model's own."""
    cos, sin = (table[0] for table in model.model.rotary_emb(x[None], torch.arange(len(x))[None]))
    for layer in model.model.layers:
        x = x + attention(layer.self_attn, norm(layer.input_layernorm, x), cos, sin)
        x = x + mlp(layer.mlp, norm(layer.post_attention_layernorm, x))
    return norm(model.model.norm, x)


def share(x: Tensor, k: int) -> Tensor:
    return x / k + (x - x / k).detach()


def norm(module: Any, x: Tensor) -> Tensor:
    return module.weight * x * (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt().detach()


def mlp(module: Any, y: Tensor) -> Tensor:
    gate = module.gate_proj(y)
    ratio = (module.act_fn(gate) / gate).detach()
    return module.down_proj(share(gate * ratio, 2) * share(module.up_proj(y), 2))


def attention(module: Any, y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    heads = module.head_dim
    q, k, v = (f(y).view(len(y), -1, heads).transpose(0, 1) for f in (module.q_proj, module.k_proj, module.v_proj))
    if hasattr(module, "q_norm"):
        q, k = norm(module.q_norm, q), norm(module.k_norm, k)
    q, k = (x * cos + torch.cat([-x[..., heads // 2 :], x[..., : heads // 2]], -1) * sin for x in (q, k))
    k, v = (x.repeat_interleave(len(q) // len(x), 0) for x in (k, v))
    # The product P V halves what reaches P, and the product Q K^T halves it again.
    logits = share(q, 4) @ share(k, 4).mT / heads**0.5
    logits = logits.masked_fill(torch.ones(len(y), len(y)).triu(1) > 0, -torch.inf)
    out = logits.softmax(-1) @ share(v, 2)
    return nn.functional.linear(out.transpose(0, 1).flatten(1), module.o_proj.weight, module.o_proj.bias)
