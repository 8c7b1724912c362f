"""What a look at a tiny model should find, restated: a loop over tokens, gradients by autograd, sums by numpy."""

from __future__ import annotations

import math

import numpy as np
import torch

from helpers.naive import naive
from shiftlens.prompts.encode import encode
from shiftlens.prompts.readers import read_prompts

NEW, L, B, P = 5, 10, 2, 4
"""Tokens of a response, and the settings of the scores."""


def plain_greedy(model, ids: list[int], stop: int) -> list[int]:
    response: list[int] = []
    with torch.no_grad():
        while len(response) < NEW:
            token = int(model(torch.tensor([[*ids, *response]])).logits[0, -1].argmax())
            if token == stop:
                break
            response.append(token)
    return response


def plain_density(model, encoded, response: list[int]) -> np.ndarray:
    ids = torch.tensor([*encoded.input_ids, *response])
    importance, _ = naive(model, ids, torch.tensor(encoded.prompt_index), len(response))
    positive = importance.double().clamp(min=0).numpy()
    S = np.ceil(np.round(L * positive / np.maximum(positive.max(axis=0), 1e-300), 9))
    S[S <= B] = 0
    lengths = (S**P).sum(axis=1) ** (1 / P)
    a = np.divide(S.sum(axis=1), lengths, out=np.zeros(len(S)), where=lengths > 0)
    return a / a.max()


def plain_look(model, lm, held_out, given=None):
    """Mean instruction score, mean density by region and by tenth of the prompt; the responses."""
    scores, regions, tenths, responses = [], {"instruction": [], "context": []}, [[] for _ in range(10)], {}
    for prompt in read_prompts(held_out).prompts:
        encoded = encode(prompt, lm.tokenizer, lm.template)
        response = (
            plain_greedy(model, list(encoded.input_ids), lm.tokenizer.eos_token_id)
            if given is None
            else given[prompt.id]
        )
        a = plain_density(model, encoded, response)
        responses[prompt.id] = response
        scores.append(a[encoded.instruction].sum() / math.log2(2 + encoded.instruction.sum()))
        for name, mask in (("instruction", encoded.instruction), ("context", encoded.context)):
            if mask.any():
                regions[name].append(a[mask].mean())
        mine = [[] for _ in range(10)]
        for n, value in enumerate(a):
            mine[int((n + 0.5) / len(a) * 10)].append(value)
        for tenth, values in zip(tenths, mine, strict=True):
            if values:
                tenth.append(np.mean(values))
    means = {f"density_{name}": np.mean(values) for name, values in regions.items()}
    means |= {f"profile/{i}": np.mean(values) for i, values in enumerate(tenths) if values}
    return {"instruction_score": np.mean(scores), **means}, responses
