"""Random inputs of a scan."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

HEADS, HEAD_DIM, STATE = 4, 3, 5


class Inputs(NamedTuple):
    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor

    def to(self, dtype: torch.dtype) -> Inputs:
        return Inputs(*(t.to(dtype) for t in self))


def make_inputs(time: int, groups: int = 1, batch: int = 2, seed: int = 0) -> Inputs:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return Inputs(
        x=normal(batch, time, HEADS, HEAD_DIM),
        dt=torch.nn.functional.softplus(normal(batch, time, HEADS) - 1),
        A=-torch.exp(normal(HEADS)),
        B=normal(batch, time, groups, STATE),
        C=normal(batch, time, groups, STATE) / STATE,
        D=normal(HEADS),
    )


def initial_state(batch: int = 2) -> Tensor:
    return torch.randn(
        batch, HEADS, STATE, HEAD_DIM, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )
