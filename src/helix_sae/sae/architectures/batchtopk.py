"""BatchTopK: the n k largest pre-activations of a batch of n tokens (Bussmann et al. 2024, arXiv:2412.06410).

Tokens get as many features as they need, ``k`` on average. Loss as TopK, with AuxK. For use, one token at a
time, the choice becomes a threshold: ``c = pre * 1[pre > threshold]``. It is set once, after training, to the
value that gives ``k`` active features a token on the last batches: a moving average kept during training
would be biased by its start.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.auxiliary import add_auxiliary_gradient, auxiliary_loss
from helix_sae.sae.config import BatchTopKConfig, SelectConfig
from helix_sae.sae.objective import (
    Forward,
    Objective,
    Params,
    StepContext,
    StepResult,
    fold,
    reconstruction_loss,
)
from helix_sae.sae.scaling import InputScaling
from helix_sae.sae.selection import active_above, largest_active
from helix_sae.sae.sparse import ActiveCodes
from helix_sae.sae.step import sparse_gradients
from helix_sae.sae.workers import SERIAL, Workers

Select = TypeVar("Select", bound=SelectConfig)

_MARGIN = 0.9
"""Candidates are those above this share of the last batch's smallest chosen value."""


class ThresholdAutoencoder(SparseAutoencoder):
    """``c = ReLU(pre) * 1[pre > threshold]`` with ``pre = (x - b_dec) W_enc + b_enc``: JumpReLU at inference."""

    bias_names = ("b_enc", "threshold")

    b_enc: Float[Tensor, " d_sae"]
    threshold: Float[Tensor, " d_sae"]

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Codes of raw activations."""
        pre = self.project(x) + self.b_enc
        return torch.relu(pre) * (pre > self.threshold)

    def encode_active(self, x: Float[Tensor, "n d_in"]) -> ActiveCodes:
        """Codes as active pairs."""
        threshold = self.threshold.detach().clamp_min(0.0)
        return active_above(*self.encoder_inputs(x), self.b_enc.detach(), threshold)

    def to_saelens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """SAELens: ``jumprelu``."""
        return {"architecture": "jumprelu"}, dict(self.named_parameters())


class BatchChoice(Objective[Select], Generic[Select]):
    """The choice of features over a batch, and its threshold: base of BatchTopK and Matryoshka."""

    def __init__(self, config: Select) -> None:
        super().__init__(config)
        # Only saves time: the choice is the same whatever this is.
        self._last_edge = 0.0

    def choose(
        self, params: Params, centred: Float[Tensor, "n d_in"], workers: Workers = SERIAL
    ) -> ActiveCodes:
        """Return the ``n k`` largest positive pre-activations of the batch."""
        count = centred.shape[0] * self.config.k
        for edge in (_MARGIN * self._last_edge, 0.0):
            threshold = torch.full_like(params["b_enc"], edge)
            candidates = active_above(centred, params["encoder"], params["b_enc"], threshold, workers)
            if candidates.codes.numel() >= count:
                break
        chosen, self._last_edge = largest_active(candidates, count)
        return chosen

    def export(
        self, params: Params, scaling: InputScaling, sample: Float[Tensor, "n d_in"]
    ) -> SparseAutoencoder:
        """Fold the scaling into the weights and set the threshold."""
        self.choose(params, sample - params["b_dec"])
        edge = max(0.0, self._last_edge) / scaling.scale
        threshold = torch.full_like(params["b_enc"], edge)
        return ThresholdAutoencoder(self.config, {**fold(params, scaling), "threshold": threshold})


class BatchTopKObjective(BatchChoice[BatchTopKConfig]):
    """Training side; see the module."""

    def forward(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> Forward:
        """Definition of the loss."""
        pre = (z - params["b_dec"]) @ params["encoder"].T + params["b_enc"]
        codes = keep_batch_top(pre, self.config.k)
        reconstruction = codes @ params["decoder"] + params["b_dec"]
        loss = reconstruction_loss(z, reconstruction)
        loss = loss + auxiliary_loss(self.config, params, pre, z - reconstruction, context.dead)
        return Forward(loss, codes, reconstruction)

    def gradients(self, params: Params, z: Float[Tensor, "n d_in"], context: StepContext) -> StepResult:
        """Loss and gradient through the active pairs only."""
        centred = z - params["b_dec"]
        active = self.choose(params, centred, context.workers)
        result = sparse_gradients(params, z, centred, active, workers=context.workers)
        return add_auxiliary_gradient(self.config, params, centred, result, context.dead)


def keep_batch_top(pre: Float[Tensor, "n d_sae"], k: int) -> Float[Tensor, "n d_sae"]:
    """Set all but the ``n k`` largest positive entries of a matrix to 0."""
    positive = pre.relu().flatten()
    values, cells = positive.topk(pre.shape[0] * k, sorted=False)
    return torch.zeros_like(positive).scatter(0, cells, values).view_as(pre)
