"""A plain network that knows nothing of this package, and the model that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from helix_sae.models.contract import Model

PLAIN_SITES = ("embed", "layers.0", "layers.1", "layers.2")


class PlainNetwork(nn.Module):
    """Residual recurrent layers; one gives a tuple, as a GRU does, another has no memory."""

    def __init__(self, n_letters: int = 5, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(n_letters, width)
        self.layers = nn.ModuleList(
            [
                nn.GRU(width, width, batch_first=True),
                nn.Linear(width, width),
                nn.GRU(width, width, batch_first=True),
            ]
        )

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.layers[0](x)[0]
        x = x + torch.tanh(self.layers[1](x))
        return x + self.layers[2](x)[0]


class PlainModel(Model):
    vocabulary: ClassVar[Mapping[str, int]] = dict(zip("UGCAN", range(5), strict=True))

    def forward(self, ids: Tensor) -> Tensor:
        return self.module(ids)


def plain_model(seed: int = 0) -> PlainModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = PlainModel(PlainNetwork(), PLAIN_SITES)
    model.place("cpu", torch.float32)
    return model
