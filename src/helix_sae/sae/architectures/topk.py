"""TopK: the k largest pre-activations of each token (Gao et al. 2024, arXiv:2406.04093).

``c = TopK(ReLU(W_enc (x - b_dec) + b_enc))``, ``x_hat = W_dec^T c + b_dec``,
loss ``|z - z_hat|^2 / d_in + aux_coefficient |e - e_hat|^2 / d_in`` where ``e_hat`` reconstructs the error ``e`` from
the best ``aux_k`` dead features (AuxK).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.auxiliary import add_auxiliary_gradient, auxiliary_loss
from helix_sae.sae.config import TopKConfig
from helix_sae.sae.objective import Objective, Params, StepContext, StepResult, fold
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.sparse import ActiveCodes, top_k_active
from helix_sae.sae.step import encode_batch, sparse_gradients


class TopKAutoencoder(SparseAutoencoder):
    """Inference side; see the module."""

    b_enc: Float[Tensor, " d_sae"]
    config: TopKConfig

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Codes of raw activations: ``k`` at most for each token."""
        values, features = (self.project(x) + self.b_enc).topk(self.config.k, dim=-1)
        return torch.zeros(*x.shape[:-1], self.d_sae, dtype=values.dtype, device=x.device).scatter(
            -1, features, values.relu()
        )

    @torch.no_grad()
    def encode_active(self, x: Float[Tensor, "n d_in"]) -> ActiveCodes:
        """Codes as active pairs; zeros among the ``k`` are kept."""
        return top_k_active(self.project(x) + self.b_enc, self.config.k)

    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """SAELens: ``topk``."""
        keys = {"architecture": "topk", "k": self.config.k, "rescale_acts_by_decoder_norm": False}
        return keys, dict(self.named_parameters())


class TopKObjective(Objective[TopKConfig]):
    """Training side; see the module."""

    def loss(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Float[Tensor, ""]:
        """Definition of the loss."""
        pre = torch.addmm(params["b_enc"], z - params["b_dec"], params["encoder"].T)
        values, features = pre.topk(self.config.k, dim=1)
        codes = torch.zeros_like(pre).scatter(1, features, values.relu())
        error = z - (codes @ params["decoder"] + params["b_dec"])
        loss = error.square().sum(1).mean() / z.shape[1]
        return loss + auxiliary_loss(self.config, params, z, pre, error, context.dead)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient through the active pairs only."""
        batch = encode_batch(params, z)
        result = sparse_gradients(params, batch, top_k_active(batch.pre, self.config.k))
        return add_auxiliary_gradient(self.config, params, batch, result, context.dead)

    def export(self, params: Params, scaling: InputScaling) -> SparseAutoencoder:
        """Fold the scaling into the weights."""
        return TopKAutoencoder(self.config, fold(params, scaling))
