"""Which form of a computation is taken, and when: decided here and nowhere else.

Each function gives what its namesake in :mod:`helix_sae.models.helix.definition` gives; a test holds each
form to it. In short: a frozen network in float32 on a CPU has fused and factored forms, with gradients of
their own where one is wanted in its inputs; on a GPU mamba-ssm's scan is used where it is installed and
right; everything else is computed as it is defined, but for the scan, which goes in chunks.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from helix_sae.models.contract import widened
from helix_sae.models.helix import definition
from helix_sae.models.helix.definition import ScanResult
from helix_sae.models.helix.fast import linear as onednn
from helix_sae.models.helix.fast.convolution import (
    ConvolutionOfFrozenWeights,
    as_image,
    channels_last,
    from_image,
)
from helix_sae.models.helix.fast.factored_scan import (
    CHUNKS,
    LARGEST_EXPONENT_OF_GRADIENT,
    FactoredScan,
    factored_chunk,
    factored_outputs,
)
from helix_sae.models.helix.fast.hooks import is_watched
from helix_sae.models.helix.fast.kernels import installed_scan
from helix_sae.models.helix.fast.norm import NormOfFrozenWeight, norm_in_place
from helix_sae.models.helix.fast.scan import PLAIN_CHUNK, chunked_outputs, final_state


def linear(
    x: Float[Tensor, "*batch n_in"],
    weight: Float[Tensor, "n_out n_in"],
    bias: Float[Tensor, " n_out"] | None = None,
) -> Float[Tensor, "*batch n_out"]:
    """``x @ weight.T + bias``."""
    if _is_plain_float32(x, weight) and onednn.has_onednn():
        return onednn.linear(x, weight, bias)
    return nn.functional.linear(x, weight, bias)


def linear_forward(self: Any, input: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
    """``nn.Linear.forward``, by :func:`linear`."""
    return linear(input, self.weight, self.bias)


def fuses(x: Tensor, *parts: Any) -> bool:
    """Whether linear layers may be computed together with what is around them.

    Nobody hooks or replaced one, nothing has to be differentiated, and oneDNN has the form.
    """
    is_ours = all(getattr(part.forward, "__func__", None) is linear_forward for part in parts)
    if not is_ours or any(part.bias is not None or is_watched(part) for part in parts):
        return False
    return fits_fused(x, *(part.weight for part in parts))


def fits_fused(x: Tensor, *weights: Tensor) -> bool:
    """Whether products of these tensors can have a SiLU or a factor inside."""
    return all(_is_plain_float32(x, weight) for weight in weights) and onednn.has_fused_onednn()


def is_silu(activation: nn.Module) -> bool:
    """Whether an activation is the SiLU, and no hook waits for it."""
    return type(activation).__name__ in ("SiLU", "SiLUActivation") and not is_watched(activation)


def activated_convolution(
    x: Float[Tensor, "batch time channels"],
    layer: nn.Conv1d,
    activation: nn.Module,
    tail: Float[Tensor, "batch kernel_minus_1 channels"] | None,
) -> Float[Tensor, "batch time channels"]:
    """The activation of a mixer's convolution."""
    if is_silu(activation) and x.shape[1] > 0 and fits_fused(x, layer.weight):
        image, padding = as_image(x, layer.weight, tail)
        out = onednn.convolution_silu(image, layer.weight.unsqueeze(2), layer.bias, padding)
        return from_image(out, x.shape[1])
    return activation(convolution(x, layer.weight, layer.bias, tail))


def convolution(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels 1 kernel"],
    bias: Float[Tensor, " channels"] | None,
    tail: Float[Tensor, "batch kernel_minus_1 channels"] | None = None,
) -> Float[Tensor, "batch time channels"]:
    """Depthwise causal convolution."""
    if x.device.type == "cpu" and x.shape[1] > 0:
        if not _wants_gradient(x, weight):
            return channels_last(x, weight, bias, tail)
        if not (_wants_gradient(weight, bias, tail) or torch.compiler.is_compiling()):
            return cast("Tensor", ConvolutionOfFrozenWeights.apply(x, weight, bias, tail))
    return definition.convolution(x, weight, bias, tail)


def norm(x: Float[Tensor, "*batch width"], n: Any) -> Float[Tensor, "*batch width"]:
    """Over the root mean square, times a weight, in whose precision it is given out."""
    x = widened(x)
    if not _wants_gradient(x, n.weight):
        return norm_in_place(x, n.weight, n.variance_epsilon)
    if not (_wants_gradient(n.weight) or torch.compiler.is_compiling()) and x.dtype == n.weight.dtype:
        return cast("Tensor", NormOfFrozenWeight.apply(x, n.weight, n.variance_epsilon))
    return definition.norm(x, n)


def chunked_scan(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    *,
    chunk: int | None = None,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> ScanResult:
    """:func:`helix_sae.models.helix.definition.recurrence`; ``chunk`` as for :func:`scan_outputs`."""
    y = scan_outputs(x, dt, A, B, C, D, chunk=chunk, initial_state=initial_state)
    return ScanResult(y, final_state(x, dt, A, B, initial_state=initial_state))


def scan_outputs(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    *,
    chunk: int | None = None,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> Float[Tensor, "batch time heads head_dim"]:
    """The outputs of a scan without the state after the last token, which a whole pass has no use for.

    ``chunk`` is the most tokens a chunk; what is fastest when absent.
    """
    wanting = _gradient_of_a_scan(x, dt, A, B, C, D, initial_state)
    if x.is_cuda and initial_state is None and B.shape[2] == 1 and not wanting:
        # Groups of heads are numbered otherwise there, and a state to begin with is not asked for where it
        # pays.
        kernel = installed_scan(chunked_outputs)
        if kernel is not None:
            return kernel(x, dt, A, B, C, D)
    longest = CHUNKS[0] if chunk is None else chunk
    if not wanting and (split := factored_chunk(dt, A, longest)):
        return factored_outputs(x, dt, A, B, C, D, split, initial_state)
    if wanting == "inputs" and (
        split := factored_chunk(dt, A, longest, largest=LARGEST_EXPONENT_OF_GRADIENT)
    ):
        return cast("Tensor", FactoredScan.apply(x, dt, A, B, C, D, split, initial_state))
    return chunked_outputs(x, dt, A, B, C, D, PLAIN_CHUNK if chunk is None else chunk, initial_state)


def _gradient_of_a_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None
) -> Literal["", "inputs", "weights"]:
    """Whether a gradient is wanted: in no more than what a frozen model computes of its tokens, or in others as well."""
    if not torch.is_grad_enabled():
        return ""
    if any(t is not None and t.requires_grad for t in (A, D, initial_state)):
        return "weights"
    return "inputs" if any(t.requires_grad for t in (x, dt, B, C)) else ""


def _is_plain_float32(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN can be given both: float32 on a CPU, and nothing to be differentiated or traced."""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() > 0
        and not _wants_gradient(x, weight)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and type(x) is Tensor
    )


def _wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether what is computed of these has to be differentiated."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
