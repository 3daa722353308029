"""The norm of a frozen network, in fewer passes over the data than its formula and autograd take."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def norm_in_place(
    x: Float[Tensor, "*batch width"], weight: Float[Tensor, " width"], epsilon: float
) -> Float[Tensor, "*batch width"]:
    """:func:`helix_sae.models.helix.definition.norm` where no gradient is wanted; ``x`` in at least float32."""
    return (x * _scale(x, epsilon)).to(weight.dtype).mul_(weight)


class NormOfFrozenWeight(torch.autograd.Function):
    """The norm with a gradient for its input alone, in fewer passes over the data than autograd's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:  # noqa: D102
        scale = _scale(x, epsilon)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: D102
        x, weight, scale = ctx.saved_tensors
        weighted = grads[0] * weight
        along = (weighted * x).sum(-1, keepdim=True).mul_(scale.square()).div_(-x.shape[-1])
        return weighted.addcmul_(x, along).mul_(scale), None, None


def _scale(x: Float[Tensor, "*batch width"], epsilon: float) -> Float[Tensor, "*batch 1"]:
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    return square.div_(x.shape[-1]).add_(epsilon).rsqrt_()
