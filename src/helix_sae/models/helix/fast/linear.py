"""Matrix products with weights on a CPU, through oneDNN where nothing has to be differentiated.

torch hands float32 products to MKL, which on processors of another maker than its own runs at about half of the rate that
oneDNN, also inside torch, reaches. Both add up the same float32 products, in another order.
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
"""Rows of a gated unit that are computed at a time: what lies between its products then stays in the cache."""


def keep_few_shapes() -> None:
    """Hold oneDNN to what it makes for 64 shapes, unless the environment says otherwise; too late once it has been used.

    Its own limit is 1,024, which at ever new lengths are hundreds of megabytes.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def linear_forward(self: Any, input: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
    """``nn.Linear.forward``, faster on a CPU."""
    return linear(input, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*batch n_in"],
    weight: Float[Tensor, "n_out n_in"],
    bias: Float[Tensor, " n_out"] | None = None,
) -> Float[Tensor, "*batch n_out"]:
    """``x @ weight.T + bias``."""
    if _fits_onednn(x, weight) and has_onednn():
        return _ONEDNN._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


def gated_unit(
    x: Float[Tensor, "*batch n_in"],
    gate: Float[Tensor, "n_inner n_in"],
    up: Float[Tensor, "n_inner n_in"],
    down: Float[Tensor, "n_out n_inner"],
) -> Float[Tensor, "*batch n_out"] | None:
    """``(silu(x @ gate.T) * (x @ up.T)) @ down.T`` with the SiLU and the product inside the matrix products.

    None where that cannot be done: see :func:`linear` for what it asks of its arguments.
    """
    if not (all(_fits_onednn(x, weight) for weight in (gate, up, down)) and has_fused_onednn()):
        return None
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty(rows.shape[0], down.shape[0])
    for block, target in zip(rows.split(GATED_ROWS), out.split(GATED_ROWS), strict=True):
        gated = _linear_silu(block, gate)
        gated = _ONEDNN._linear_pointwise.binary(block, gated, up, None, "mul")
        target.copy_(linear(gated, down))
    return out.view(*x.shape[:-1], down.shape[0])


def linear_silu(
    x: Float[Tensor, "*batch n_in"], weight: Float[Tensor, "n_out n_in"]
) -> Float[Tensor, "*batch n_out"] | None:
    """``silu(x @ weight.T)``, the SiLU inside the product; None where that cannot be done."""
    return _linear_silu(x, weight) if _fits_onednn(x, weight) and has_fused_onednn() else None


def convolution_silu(
    x: Float[Tensor, "batch channels 1 time"],
    weight: Float[Tensor, "channels 1 1 kernel"],
    bias: Float[Tensor, " channels"] | None,
    padding: int,
) -> Float[Tensor, "batch channels 1 out"] | None:
    """The SiLU of a depthwise convolution, in one; None where that cannot be done."""
    if not (_fits_onednn(x, weight) and has_fused_onednn()):
        return None
    return _ONEDNN._convolution_pointwise(
        x, weight, bias, [0, padding], [1, 1], [1, 1], weight.shape[0], "swish", [], ""
    )


def _linear_silu(x: Tensor, weight: Tensor) -> Tensor:
    return _ONEDNN._linear_pointwise(x, weight, None, "swish", [], "")


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
            _linear_silu(x, weight),
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


def _fits_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() > 0
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and type(x) is Tensor
    )
