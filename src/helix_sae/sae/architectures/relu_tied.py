"""The original's tied autoencoder: ``c = ReLU(W x + b)``, ``x_hat = W^T c``, loss as :mod:`relu`.

Activations are centred first, and rows of ``W`` kept at unit norm: without that the codes could shrink, and
the penalty with them, while ``W`` grows. The mean comes back as ``b_dec`` on export.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.architectures.relu import ReluAutoencoder, relu_forward, relu_gradients
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.config import ReluTiedConfig
from helix_sae.sae.objective import Forward, Objective, Params, StepContext, StepResult, fold
from helix_sae.sae.scaling import InputScaling


class ReluTiedObjective(Objective[ReluTiedConfig]):
    """Training side; see the module. Parameters: ``encoder`` (the rows of ``W``) and ``b_enc``."""

    unit_rows: ClassVar[tuple[str, ...]] = ("encoder",)

    def initialise(self, generator: torch.Generator) -> Params:
        """Random unit rows, bias 0."""
        params = super().initialise(generator)
        return {"encoder": params["encoder"], "b_enc": params["b_enc"]}

    def forward(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Forward:
        """Definition of the loss."""
        return relu_forward(self.config, self._untied(params), z, context)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient; both uses of ``W`` add up."""
        result = relu_gradients(self.config, self._untied(params), z, context)
        result.gradients["encoder"].add_(result.gradients.pop("decoder"))
        del result.gradients["b_dec"]
        return result

    def export(
        self, params: Params, scaling: InputScaling, sample: Float[Tensor, "n d_in"]
    ) -> SparseAutoencoder:
        """Fold the scaling into the weights."""
        return ReluAutoencoder(self.config, fold(self._untied(params), scaling))

    def _untied(self, params: Params) -> Params:
        zeros = torch.zeros(self.config.d_in or 0, device=params["encoder"].device)
        return {**params, "decoder": params["encoder"], "b_dec": zeros}
