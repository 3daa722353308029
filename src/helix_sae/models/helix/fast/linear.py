"""Matrix products with weights on a CPU, through oneDNN, and what can be computed inside of them.

torch hands float32 products to MKL, which on processors of another maker than its own runs at about half of
the rate that oneDNN, also inside torch, reaches. Both add up the same float32 products, in another order.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_ONEDNN: Any = torch.ops.mkldnn
"""torch's own operators for oneDNN, made for its compiler and no part of its public interface."""

GATED_ROWS = 1024
"""Rows of a gated unit that are computed at a time: what lies between its products then stays in the
cache."""


def keep_few_shapes() -> None:
    """Hold oneDNN to what it makes for 64 shapes, unless the environment says otherwise; too late once it has been used.

    Its own limit is 1,024, which at ever new lengths are hundreds of megabytes.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def linear(
    x: Float[Tensor, "*batch n_in"],
    weight: Float[Tensor, "n_out n_in"],
    bias: Float[Tensor, " n_out"] | None = None,
) -> Float[Tensor, "*batch n_out"]:
    """``x @ weight.T + bias``."""
    return _ONEDNN._linear_pointwise(x, weight, bias, "none", [], "")


def linear_silu(
    x: Float[Tensor, "*batch n_in"], weight: Float[Tensor, "n_out n_in"]
) -> Float[Tensor, "*batch n_out"]:
    """``silu(x @ weight.T)``, the SiLU inside the product."""
    return _ONEDNN._linear_pointwise(x, weight, None, "swish", [], "")


def gated_unit(
    x: Float[Tensor, "*batch n_in"],
    gate: Float[Tensor, "n_inner n_in"],
    up: Float[Tensor, "n_inner n_in"],
    down: Float[Tensor, "n_out n_inner"],
) -> Float[Tensor, "*batch n_out"]:
    """``(silu(x @ gate.T) * (x @ up.T)) @ down.T`` with the SiLU and the product inside the matrix products."""
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty(rows.shape[0], down.shape[0])
    for block, target in zip(rows.split(GATED_ROWS), out.split(GATED_ROWS), strict=True):
        gated = linear_silu(block, gate)
        gated = _ONEDNN._linear_pointwise.binary(block, gated, up, None, "mul")
        target.copy_(linear(gated, down))
    return out.view(*x.shape[:-1], down.shape[0])


def convolution_silu(
    x: Float[Tensor, "batch channels 1 time"],
    weight: Float[Tensor, "channels 1 1 kernel"],
    bias: Float[Tensor, " channels"] | None,
    padding: int,
) -> Float[Tensor, "batch channels 1 out"]:
    """The SiLU of a depthwise convolution, in one."""
    return _ONEDNN._convolution_pointwise(
        x, weight, bias, [0, padding], [1, 1], [1, 1], weight.shape[0], "swish", [], ""
    )


@functools.cache
def has_fused_onednn() -> bool:
    """Whether oneDNN's products and convolutions with a SiLU or a factor behind them are there and give what they should."""
    if not has_onednn():
        return False
    x, weight = torch.linspace(-3, 3, 6).view(2, 3), torch.linspace(-1, 2, 12).view(4, 3)
    image, kernel = torch.linspace(-2, 2, 30).view(1, 3, 1, 10), torch.linspace(-1, 1, 12).view(3, 1, 1, 4)
    plain, convolved = x @ weight.T, nn.functional.conv2d(image, kernel, padding=(0, 3), groups=3)
    image = image.contiguous(memory_format=torch.channels_last)
    try:
        found = (
            linear_silu(x, weight),
            _ONEDNN._linear_pointwise.binary(x, plain, weight, None, "mul"),
            _ONEDNN._convolution_pointwise(image, kernel, None, [0, 3], [1, 1], [1, 1], 3, "swish", [], ""),
        )
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    expected = nn.functional.silu(plain), plain * plain, nn.functional.silu(convolved)
    return all(torch.allclose(f, e, atol=1e-5) for f, e in zip(found, expected, strict=True))


@functools.cache
def has_onednn() -> bool:
    """Whether this torch offers oneDNN's linear product and it gives what it should."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    try:
        found = _ONEDNN._linear_pointwise(x, weight, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    return torch.equal(found, x @ weight.T)
