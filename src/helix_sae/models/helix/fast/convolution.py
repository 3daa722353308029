"""The short causal convolution of a mixer on a CPU, channels last, and its gradient.

torch's convolution of images has a kernel for channels that come last: a sequence is an image one pixel high.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def channels_last(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels 1 kernel"],
    bias: Float[Tensor, " channels"] | None,
    tail: Float[Tensor, "batch kernel_minus_1 channels"] | None,
) -> Float[Tensor, "batch time channels"]:
    """:func:`helix_sae.models.helix.definition.convolution` without a transpose; of at least one token."""
    image, padding = as_image(x, weight, tail)
    out = nn.functional.conv2d(image, weight.unsqueeze(2), bias, padding=(0, padding), groups=weight.shape[0])
    return from_image(out, x.shape[1])


class ConvolutionOfFrozenWeights(torch.autograd.Function):
    """:func:`channels_last` with a gradient for its input alone: a convolution that looks ahead.

    Autograd's own, through a sum of slices, writes an array of zeros for each of them.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor | None
    ) -> Tensor:
        ctx.weight = weight
        return channels_last(x, weight, bias, tail)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: D102
        kernel = ctx.weight.shape[-1]
        padded = nn.functional.pad(grads[0], (0, 0, 0, kernel - 1))
        image = padded.unsqueeze(1).permute(0, 3, 1, 2)
        out = nn.functional.conv2d(image, ctx.weight.flip(-1).unsqueeze(2), groups=ctx.weight.shape[0])
        return from_image(out, grads[0].shape[1]), None, None, None


def as_image(x: Tensor, weight: Tensor, tail: Tensor | None) -> tuple[Tensor, int]:
    """A sequence as an image one pixel high, and the zeros that are put at both of its ends."""
    rows = x if tail is None else torch.cat([tail.to(x.dtype), x], dim=1)
    return rows.unsqueeze(1).permute(0, 3, 1, 2), weight.shape[-1] - 1 if tail is None else 0


def from_image(out: Tensor, time: int) -> Tensor:
    """The sequence that an image holds."""
    return out[..., :time].permute(0, 2, 3, 1).squeeze(1)
