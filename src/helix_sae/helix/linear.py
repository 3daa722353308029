"""Matrix products with weights on a CPU, through oneDNN where nothing has to be differentiated.

torch hands float32 products to MKL, which on processors of another maker than its own runs at about half of the rate that
oneDNN, also inside torch, reaches. Both add up the same float32 products, in another order.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


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
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # pyright: ignore[reportCallIssue]
    return nn.functional.linear(x, weight, bias)


@functools.cache
def has_onednn() -> bool:
    """Whether this torch offers oneDNN's linear product and it gives what it should."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    try:
        found = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")  # pyright: ignore[reportCallIssue]
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        # The operator is torch's own, made for its compiler, and no part of its public interface.
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
