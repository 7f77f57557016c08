"""Draws of torch, from its global generator and from others."""

from __future__ import annotations

from typing import Any

import torch
from drawing import Drawing

from workers import current_seed


class OfTorch(Drawing):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()
        self.dropout = torch.nn.Dropout(0.5)

    def kinds(self) -> dict[str, Any]:
        return {
            "global": lambda: torch.rand(3),
            "generator": lambda: torch.randn(3, generator=self.generator),
            "dropout": lambda: self.dropout(torch.ones(50)),
            "permutation": lambda: torch.randperm(50, generator=self.generator),
            "current_seed": lambda: torch.rand(3, generator=torch.Generator().manual_seed(int(current_seed()[0]))),
        }
