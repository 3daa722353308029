"""The original's tied autoencoder: ``c = ReLU(W x + b)``, ``x_hat = W^T c``, loss as :mod:`relu`.

Activations are centred first, and rows of ``W`` kept at unit norm: without that the codes could shrink, and the
penalty with them, while ``W`` grows. The mean comes back as ``b_dec`` on export.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.architectures.relu import ReluAutoencoder, relu_gradients, relu_loss
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import ReluTiedConfig
from helix_sae.sae.objective import Objective, Params, StepContext, StepResult, fold
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.step import encode_batch


class ReluTiedObjective(Objective[ReluTiedConfig]):
    """Training side; see the module. Parameters: ``encoder`` (the rows of ``W``) and ``b_enc``."""

    unit_rows: ClassVar[tuple[str, ...]] = ("encoder",)

    def initialise(self, generator: torch.Generator) -> Params:
        """Random unit rows, bias 0."""
        params = super().initialise(generator)
        return {"encoder": params["encoder"], "b_enc": params["b_enc"]}

    def loss(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Float[Tensor, ""]:
        """Definition of the loss."""
        return relu_loss(self.config, self._untied(params), z, context)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient; both uses of ``W`` add up."""
        untied = self._untied(params)
        penalty = self.config.penalty * context.sparsity_weight
        result = relu_gradients(untied, encode_batch(untied, z), penalty)
        result.gradients["encoder"].add_(result.gradients.pop("decoder"))
        del result.gradients["b_dec"]
        return result

    def export(self, params: Params, scaling: InputScaling) -> SparseAutoencoder:
        """Fold the scaling into the weights."""
        return ReluAutoencoder(self.config, fold(self._untied(params), scaling))

    def _untied(self, params: Params) -> Params:
        zeros = torch.zeros(self.config.d_in or 0, device=params["encoder"].device)
        return {**params, "decoder": params["encoder"], "b_dec": zeros}
