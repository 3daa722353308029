"""What an architecture tells the trainer: parameters, loss, and a hand-written gradient of it.

Training happens on scaled activations ``z`` (:mod:`helix_sae.sae.scaling`), with the encoder kept as rows so that both
weight matrices are (d_sae, d_in). Every objective states its loss twice: :meth:`Objective.loss`, plain and
differentiable, and :meth:`Objective.gradients`, by hand and sparse where that pays; tests hold the second to the
first. All losses share the reconstruction term ``|z - z_hat|^2 / d_in``, averaged over tokens, which is near 1 for an
SAE that knows nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import SaeConfig
from helix_sae.sae.scaling import InputScaling

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
    """

    sparsity_weight: float = 1.0
    dead: Bool[Tensor, " d_sae"] | None = None


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
        Sum of ``(z - z_hat)^2`` over the batch.
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

    @abstractmethod
    def loss(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Float[Tensor, ""]:
        """Loss of a batch, plain and differentiable: the definition that :meth:`gradients` is tested against."""

    @abstractmethod
    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss of a batch and its gradient, by hand."""

    @abstractmethod
    def export(self, params: Params, scaling: InputScaling) -> SparseAutoencoder:
        """Fold the scaling into the weights."""


def fold(params: Params, scaling: InputScaling) -> dict[str, Tensor]:
    """Weights that take raw activations.

    With ``z = (x - mean) s`` and codes divided by ``s``, the weight matrices stay as they are (decoder rows keep unit
    norm, tied weights stay tied), biases of the encoder are divided by ``s`` and ``b_dec`` becomes ``mean + b_dec / s``.
    """
    return {
        "W_enc": params["encoder"].T.contiguous(),
        "b_enc": params["b_enc"] / scaling.scale,
        "W_dec": params["decoder"].clone(),
        "b_dec": scaling.mean + params["b_dec"] / scaling.scale,
    }
