"""Weights by name, compared."""

from __future__ import annotations

import torch


def close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name, weight in a.items():
        torch.testing.assert_close(b[name], weight, rtol=tolerance, atol=tolerance)
