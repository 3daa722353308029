"""What an architecture tells the trainer: parameters, loss, and, where it pays, a hand-written gradient.

Training happens on scaled activations ``z`` (:mod:`helix_sae.sae.scaling`), with the encoder kept as rows
so that both weight matrices are (d_sae, d_in). Every objective states its loss in
:meth:`Objective.forward`, plain and differentiable. Those that are shipped state it again in
:meth:`Objective.gradients`, by hand and sparse where that pays, and tests hold the second to the first;
without it the gradient is autograd's. All losses share the reconstruction term ``|z - z_hat|^2 / d_in``,
averaged over tokens, which is near 1 for an SAE that knows nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import SaeConfig
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.workers import SERIAL, Workers

ConfigT = TypeVar("ConfigT", bound=SaeConfig)
Params = dict[str, Tensor]


@dataclass(frozen=True)
class StepContext:
    """What a step depends on beside parameters and batch.

    Attributes
    ----------
    sparsity_weight : float
        Share of the full sparsity penalty, 0 to 1 (sparsity warm-up).
    dead : bool Tensor (d_sae,), optional
        Dead features; None when there is none.
    workers : Workers
        Threads for the work of the step; no result depends on their number.
    """

    sparsity_weight: float = 1.0
    dead: Bool[Tensor, " d_sae"] | None = None
    workers: Workers = SERIAL


@dataclass(frozen=True)
class Forward:
    """Loss of a batch with the codes and the reconstruction it was computed from, all differentiable."""

    loss: Float[Tensor, ""]
    codes: Float[Tensor, "n d_sae"]
    reconstruction: Float[Tensor, "n d_in"]


@dataclass(frozen=True)
class StepResult:
    """Gradient and measurements of one batch.

    Attributes
    ----------
    gradients : dict of str to Tensor
        One for each parameter.
    residual : Tensor (n, d_in)
        ``z_hat - z``.
    squared_error : Tensor ()
        Its squares' sum.
    l1 : Tensor ()
        Summed codes, averaged over tokens.
    loss : Tensor ()
        The whole loss.
    fired : int64 (d_sae,)
        Tokens on which each feature was active.
    """

    gradients: Params
    residual: Float[Tensor, "n d_in"]
    squared_error: Float[Tensor, ""]
    l1: Float[Tensor, ""]
    loss: Float[Tensor, ""]
    fired: Int[Tensor, " d_sae"]


class Objective(ABC, Generic[ConfigT]):
    """Training side of an architecture.

    Parameters
    ----------
    config : SaeConfig
        With ``d_in`` filled in.
    """

    unit_rows: ClassVar[tuple[str, ...]] = ("decoder",)
    """Parameters whose rows are kept at unit norm."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self.d_sae = config.d_sae

    def initialise(self, generator: torch.Generator) -> Params:
        """Random unit decoder rows, the encoder their copy, biases 0."""
        d_in = self.config.d_in or 0
        decoder = torch.randn(self.d_sae, d_in, generator=generator)
        decoder /= decoder.norm(dim=1, keepdim=True)
        return {
            "encoder": decoder.clone(),
            "b_enc": torch.zeros(self.d_sae),
            "decoder": decoder,
            "b_dec": torch.zeros(d_in),
        }

    def restart_value(self, name: str) -> float:
        """What a parameter of shape (d_sae,) holds for a feature that begins anew."""
        return 0.0

    @abstractmethod
    def forward(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Forward:
        """Loss of a batch, plain and differentiable: the definition that :meth:`gradients` is tested against."""

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss of a batch and its gradient: by autograd, unless an architecture has a faster way."""
        return self.autograd_gradients(params, z, context)

    @property
    def stackable(self) -> bool:
        """Whether :meth:`stacked_gradients` is the way to compute gradients, for one SAE as for many."""
        return False

    @staticmethod
    def stacked_gradients(
        objectives: Sequence[Objective[Any]],
        params: Params,
        z: Float[Tensor, "m n d_in"],
        contexts: Sequence[StepContext],
    ) -> StepResult:
        """Loss and gradient of ``m`` SAEs of one shape; everything has a leading dimension ``m``."""
        raise NotImplementedError

    @abstractmethod
    def export(
        self, params: Params, scaling: InputScaling, sample: Float[Tensor, "n d_in"]
    ) -> SparseAutoencoder:
        """Fold the scaling into the weights; ``sample`` are scaled activations to set thresholds by."""

    def autograd_gradients(
        self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext
    ) -> StepResult:
        """Gradient of :meth:`forward` by autograd: the slow twin, and the way where most codes are active."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        with torch.enable_grad():
            result = self.forward(leaves, z, context)
            grads = torch.autograd.grad(result.loss, list(leaves.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(params[name]) if gradient is None else gradient
            for name, gradient in zip(leaves, grads, strict=True)
        }
        residual = (result.reconstruction - z).detach().float()
        codes = result.codes.detach().float()
        return StepResult(
            gradients,
            residual,
            residual.square().sum(),
            codes.sum() / z.shape[0],
            result.loss.detach().float(),
            torch.count_nonzero(codes, dim=0),
        )


def fold(params: Params, scaling: InputScaling) -> dict[str, Tensor]:
    """Weights that take raw activations.

    With ``z = (x - mean) s`` and codes divided by ``s``, the weight matrices stay as they are (decoder rows
    keep unit norm, tied weights stay tied), biases of the encoder are divided by ``s`` and ``b_dec`` becomes
    ``mean + b_dec / s``. Where the reconstruction has a ``shift`` that the encoder's input has not, ``b_dec``
    takes it and ``b_enc`` makes up for it.
    """
    shift = params.get("shift")
    if shift is not None:
        params = {
            **params,
            "b_enc": params["b_enc"] + params["encoder"] @ shift,
            "b_dec": params["b_dec"] + shift,
        }
    return {
        "W_enc": params["encoder"].T.contiguous(),
        "b_enc": params["b_enc"] / scaling.scale,
        "W_dec": params["decoder"].clone(),
        "b_dec": scaling.mean + params["b_dec"] / scaling.scale,
    }


def reconstruction_loss(
    z: Float[Tensor, "n d_in"], reconstruction: Float[Tensor, "n d_in"]
) -> Float[Tensor, ""]:
    """``|z - z_hat|^2 / d_in``, averaged over tokens."""
    return (z - reconstruction).square().sum(1).mean() / z.shape[1]
