"""Landmark generators: from latent codes to the landmarks around which a net's field is blended."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LandmarkNet(nn.Module):
    """codes [B,d] → landmarks [B,K,3]: an MLP of two hidden layers that starts at the template's landmarks."""

    base: Tensor

    def __init__(self, code_dim: int, width: int, base: Tensor) -> None:
        """base: the template's landmarks [K,3]."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(code_dim, width),
            nn.LeakyReLU(0.01),
            nn.Linear(width, width),
            nn.LeakyReLU(0.01),
            nn.Linear(width, base.numel()),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.register_buffer("base", base.clone())

    def forward(self, codes: Tensor) -> Tensor:
        return self.base + self.layers(codes).unflatten(-1, self.base.shape)
