"""mamba-ssm's scan on a GPU: used where it is installed and gives what the scan of this package does.

``mamba_ssm`` (the authors' own package, with kernels written in Triton) is no dependency. Whether it is
right, in the installed version and on the present device, is found out by trying it once.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

LOGGER = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest difference from this package's scan, relative to its largest output."""

_MODULE = "mamba_ssm.ops.triton.ssd_combined"
_CHUNK = 128

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""``y`` of ``x, dt, A, B, C, D``, shaped as for :func:`helix_sae.models.helix.fast.choice.scan_outputs`."""


@functools.cache
def installed_scan(plain: Scan, device: str = "cuda") -> Scan | None:
    """mamba-ssm's scan, if it is installed and equals the plain one on a known case; None otherwise.

    Parameters
    ----------
    plain : callable
        The scan to compare with.
    device : str
        Where both are tried.
    """
    try:
        kernel = importlib.import_module(_MODULE).mamba_chunk_scan_combined
    except (ImportError, AttributeError, OSError):  # not there, or built for another torch
        return None

    def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        return cast("Tensor", kernel(x.contiguous(), dt.contiguous(), A, B, C, _CHUNK, D=D))

    difference = _difference(scan, plain, device)
    if not difference <= TOLERANCE:
        LOGGER.warning("mamba-ssm's scan differs from the exact one by %.2g and is not used.", difference)
        return None
    LOGGER.info("mamba-ssm's scan is used on the GPU; it differs from the exact one by %.2g.", difference)
    return scan


@torch.no_grad()
def _difference(scan: Scan, plain: Scan, device: str) -> float:
    """Largest difference on random inputs of several chunks, relative to the largest output; infinite if it fails."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    inputs: list[Any] = [
        normal(2, 300, 4, 64),
        torch.nn.functional.softplus(normal(2, 300, 4) - 2),
        -torch.exp(normal(4)),
        normal(2, 300, 1, 64),
        normal(2, 300, 1, 64),
        normal(4),
    ]
    on_device = [tensor.to(device) for tensor in inputs]
    expected = plain(*on_device)
    try:
        found = scan(*on_device)
    except Exception as error:  # Triton's compiler raises kinds of its own
        LOGGER.warning("mamba-ssm's scan cannot be used here: %s", error)
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max())
