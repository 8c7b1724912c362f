"""The definition of gradient x embedding, written plainly: the truth the fast engines are checked against."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel


def naive(
    model: PreTrainedModel, input_ids: Tensor, sources: Tensor, response: int, target: str = "log_probability"
) -> tuple[Tensor, Tensor]:
    """A[n, m] = <d f(y_m) / d E[s_n], E[s_n]> and log p(y_m), one forward and backward per response token.

    The last `response` ids are the response; y_m sees only the ids before it, so nothing here relies on
    causal masking, caches or batching.
    """
    device = next(model.parameters()).device
    input_ids, sources = input_ids.to(device), sources.to(device)
    columns, logps = [], []
    for position in range(len(input_ids) - response, len(input_ids)):
        captured: list[Tensor] = []

        def capture(_module: object, _args: object, out: Tensor, into: list[Tensor] = captured) -> Tensor:
            leaf = out.detach().requires_grad_()
            into.append(leaf)
            return leaf

        handle = model.get_input_embeddings().register_forward_hook(capture)
        try:
            with torch.enable_grad():
                logits = model(input_ids[None, :position], use_cache=False).logits[0, -1]
                logp = torch.log_softmax(logits, dim=-1)[input_ids[position]]
                f = logp
                if target == "logit_difference":
                    own = int(input_ids[position])
                    f = logits[own] - torch.cat([logits[:own], logits[own + 1 :]]).max()
                (gradient,) = torch.autograd.grad(f, captured)
        finally:
            handle.remove()
        product = (gradient[0] * captured[0][0]).sum(-1).detach()
        # Ids that are not fed have no influence.
        product = torch.cat([product, product.new_zeros(len(input_ids) - position)])
        columns.append(product[sources])
        logps.append(logp.detach())
    return torch.stack(columns, dim=1), torch.stack(logps)
