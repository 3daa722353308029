"""Centring and scaling of activations, estimated once from data and folded into the weights on export."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.errors import DataError


@dataclass(frozen=True)
class InputScaling:
    """The map ``z = (x - mean) * scale`` under which SAEs are trained.

    Attributes
    ----------
    mean : Tensor (d_in,)
        Mean activation.
    scale : float
        Chosen so that the mean L2 norm of ``z`` is ``sqrt(d_in)``: coefficients and rates then mean the same
        at every site.
    """

    mean: Float[Tensor, " d_in"]
    scale: float

    def apply(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_in"]:
        """Scale raw activations."""
        return (x - self.mean).mul_(self.scale)

    def to(self, device: str | torch.device) -> InputScaling:
        """Give the same with its mean on a device."""
        return InputScaling(self.mean.to(device), self.scale)


_ROUNDING = 1e-12
"""Share of the variance below which a direction is taken for the rounding of float32 activations."""


@dataclass(frozen=True)
class EffectiveRank:
    """In how many directions the activations of a site vary.

    Attributes
    ----------
    participation_ratio : float
        ``(sum v)^2 / sum v^2`` of the variances ``v`` of the principal components: 1 to the width.
    n_directions : int
        Principal components that hold 99 % of the variance.
    rank : int
        Principal components that hold any variance beyond the rounding of float32.
    """

    participation_ratio: float
    n_directions: int
    rank: int


def effective_rank(x: Float[Tensor, "n d_in"]) -> EffectiveRank:
    """Estimate the effective rank of activations, in float64."""
    variances = torch.linalg.eigvalsh(torch.cov(x.double().T)).flip(0).clamp_min(0.0)
    total = variances.sum()
    enough = variances.cumsum(0) >= 0.99 * total
    ratio = float(total.square() / variances.square().sum())
    rank = int((variances > _ROUNDING * total).sum())
    return EffectiveRank(ratio, int(enough.int().argmax()) + 1, rank)


def estimate_scaling(x: Float[Tensor, "n d_in"], site: str) -> InputScaling:
    """Estimate mean and scale in float64.

    Raises
    ------
    DataError
        If a value is not finite, or all rows are (nearly) the same.
    """
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        row, column = (int(i) for i in torch.nonzero(~finite)[0])
        raise DataError(
            f"The activations of site {site} are not finite ({float(x[row, column])} in row {row}, dimension"
            f" {column}); extract them again, in float32 if they overflowed a smaller type."
        )
    wide = x.double()
    mean = wide.mean(dim=0)
    spread = (wide - mean).norm(dim=1).mean()
    # Below this the differences are the rounding of float32, not something to learn.
    if float(spread) <= 1e-6 * float(wide.norm(dim=1).mean()) or float(spread) == 0.0:
        raise DataError(
            f"Site {site} has constant activations ({x.shape[0]} rows, all the same): there is nothing to"
            " learn there; leave this site out or check the extraction."
        )
    return InputScaling(mean.float(), float(x.shape[1] ** 0.5 / spread))
