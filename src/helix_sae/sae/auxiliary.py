"""AuxK: dead features learn from what the live ones leave over (Gao et al. 2024, arXiv:2406.04093, appendix A.2)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helix_sae.sae.config import SelectConfig
from helix_sae.sae.objective import Params, StepResult
from helix_sae.sae.step import Batch


def auxiliary_loss(
    config: SelectConfig,
    params: Params,
    z: Float[Tensor, "n d_in"],
    pre: Float[Tensor, "n d_sae"],
    error: Float[Tensor, "n d_in"],
    dead: Bool[Tensor, " d_sae"] | None,
) -> Float[Tensor, ""]:
    """``aux_coefficient |e - e_hat|^2 / d_in``, averaged over tokens; the error ``e = z - z_hat`` is held fixed."""
    if dead is None or config.aux_coefficient == 0:
        return z.new_zeros(())
    k = _width(config, dead, z.shape[1])
    values, features = pre[:, dead].topk(k, dim=1)
    codes = torch.zeros_like(pre[:, dead]).scatter(1, features, values.relu())
    missed = error.detach() - codes @ params["decoder"][dead]
    return config.aux_coefficient * missed.square().sum(1).mean() / z.shape[1]


def add_auxiliary_gradient(
    config: SelectConfig,
    params: Params,
    batch: Batch,
    result: StepResult,
    dead: Bool[Tensor, " d_sae"] | None,
) -> StepResult:
    """Add loss and gradient of :func:`auxiliary_loss` to a step (gradients in place)."""
    if dead is None or config.aux_coefficient == 0:
        return result
    n, d_in = batch.z.shape
    index = dead.nonzero().squeeze(1)
    decoder = params["decoder"][index]
    pre = batch.pre[:, index]
    k = _width(config, dead, d_in)
    if k < index.numel():
        values, features = pre.topk(k, dim=1)
        codes = torch.zeros_like(pre).scatter_(1, features, values.relu_())
    else:
        codes = pre.relu_()
    missed = torch.addmm(result.residual, codes, decoder)  # e_hat - e, as the residual is -e
    gradient = missed * (2.0 * config.aux_coefficient / (n * d_in))
    value_grad = (gradient @ decoder.T).mul_(codes > 0)
    bias = value_grad.sum(0)
    gradients = result.gradients
    gradients["decoder"].index_add_(0, index, codes.T @ gradient)
    gradients["encoder"].index_add_(0, index, value_grad.T @ batch.centred)
    gradients["b_enc"].index_add_(0, index, bias)
    gradients["b_dec"].sub_(bias @ params["encoder"][index])
    loss = config.aux_coefficient * missed.square().sum() / missed.numel()
    return replace(result, loss=result.loss + loss)


def _width(config: SelectConfig, dead: Bool[Tensor, " d_sae"], d_in: int) -> int:
    return min(config.aux_k or max(1, d_in // 2), int(dead.sum()))
