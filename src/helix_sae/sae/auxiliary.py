"""AuxK: dead features learn from what the live ones leave over (Gao et al. 2024, arXiv:2406.04093, appendix A.2)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helix_sae.sae.config import AuxiliaryConfig
from helix_sae.sae.objective import Params, StepResult


def auxiliary_loss(
    config: AuxiliaryConfig,
    params: Params,
    pre: Float[Tensor, "n d_sae"],
    error: Float[Tensor, "n d_in"],
    dead: Bool[Tensor, " d_sae"] | None,
) -> Float[Tensor, ""]:
    """``aux_coefficient |e - e_hat|^2 / d_in``, averaged over tokens; the error ``e = z - z_hat`` is held fixed."""
    if dead is None or config.aux_coefficient == 0:
        return error.new_zeros(())
    values, features = pre[:, dead].topk(_width(config, dead), dim=1)
    codes = torch.zeros_like(pre[:, dead]).scatter(1, features, values.relu())
    missed = error.detach() - codes @ params["decoder"][dead]
    return config.aux_coefficient * missed.square().sum(1).mean() / error.shape[1]


def add_auxiliary_gradient(
    config: AuxiliaryConfig,
    params: Params,
    centred: Float[Tensor, "n d_in"],
    result: StepResult,
    dead: Bool[Tensor, " d_sae"] | None,
) -> StepResult:
    """Add loss and gradient of :func:`auxiliary_loss` to a step (gradients in place)."""
    if dead is None or config.aux_coefficient == 0:
        return result
    index = dead.nonzero().squeeze(1)
    encoder, decoder = params["encoder"][index], params["decoder"][index]
    pre = torch.addmm(
        params["b_enc"][index], centred, encoder.T
    ).float()  # autocast may have made it bfloat16
    k = _width(config, dead)
    if k < index.numel():
        values, features = pre.topk(k, dim=1)
        codes = torch.zeros_like(pre).scatter_(1, features, values.relu_())
    else:
        codes = pre.relu_()
    missed = torch.addmm(result.residual, codes, decoder).float()  # e_hat - e, as the residual is -e
    gradient = missed * (2.0 * config.aux_coefficient / missed.numel())
    products = torch.ops.aten.threshold_backward((gradient @ decoder.T).float(), codes, 0.0)  # pyright: ignore[reportCallIssue]
    summed = products.sum(0)
    gradients = result.gradients
    gradients["decoder"].index_add_(0, index, (codes.T @ gradient).float())
    gradients["encoder"].index_add_(0, index, (products.T @ centred).float())
    gradients["b_enc"].index_add_(0, index, summed)
    gradients["b_dec"].sub_((summed @ encoder).float())
    loss = config.aux_coefficient * missed.square().sum() / missed.numel()
    return replace(result, loss=result.loss + loss)


def _width(config: AuxiliaryConfig, dead: Bool[Tensor, " d_sae"]) -> int:
    return min(config.aux_k or max(1, (config.d_in or 1) // 2), int(dead.sum()))
