"""What a Mamba-2 mixer of transformers computes (Dao and Gu 2024, arXiv:2405.21060), in place of its own forwards.

Each function takes the place of the method of the same module in
``transformers.models.mamba2.modeling_mamba2``, with its arguments. Norms and the scan run in at least
float32, where upstream rounds float64 to it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from helix_sae.models.contract import widened
from helix_sae.models.helix.fast.choice import convolution, scan_outputs
from helix_sae.models.helix.fast.forward import MixerState
from helix_sae.models.helix.fast.scan import final_state


def mixer_forward(
    self: Any,
    hidden_states: Float[Tensor, "batch time hidden"],
    cache_params: MixerState | None = None,
    attention_mask: Int[Tensor, "batch time"] | None = None,
    **_: object,
) -> Float[Tensor, "batch time hidden"]:
    """``Mamba2Mixer.forward``: projections, a short convolution, the scan, a gate, a norm, a projection.

    ``cache_params`` is the state to go on from.
    """
    tail, state = (None, None) if cache_params is None else cache_params
    gate, signal, step = _projections(self, hidden_states, attention_mask)
    convolved = self.act(convolution(signal, self.conv1d.weight, self.conv1d.bias, tail))
    x, dt, A, B, C = _scan_inputs(self, _masked(convolved, attention_mask), step)
    y = scan_outputs(x, dt, A, B, C, _by_turns(widened(self.D), self.n_groups, dim=0), initial_state=state)
    y = _in_order(y, self.n_groups).flatten(2)
    return self.out_proj(self.norm(y, gate).to(self.out_proj.weight.dtype))


def gated_norm_forward(
    self: Any, hidden_states: Float[Tensor, "*batch width"], gate: Float[Tensor, "*batch width"]
) -> Float[Tensor, "*batch width"]:
    """``MambaRMSNormGated.forward``: the norm of ``hidden * silu(gate)``, group by group."""
    x = widened(hidden_states) * nn.functional.silu(widened(gate))
    groups = x.unflatten(-1, (-1, self.group_size))
    return self.weight * _over_root_mean_square(groups, self.variance_epsilon).flatten(-2)


def norm_forward(self: Any, hidden_states: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """``Mamba2RMSNorm.forward``, given out in the precision of its weight."""
    x = _over_root_mean_square(widened(hidden_states), self.variance_epsilon)
    return self.weight * x.to(self.weight.dtype)


def block_forward(
    self: Any,
    hidden_states: Float[Tensor, "batch time hidden"],
    cache_params: object = None,
    attention_mask: Int[Tensor, "batch time"] | None = None,
    **_: object,
) -> Float[Tensor, "batch time hidden"]:
    """``Mamba2Block.forward``: ``x + mixer(norm(x))``; the residual stream in at least float32 where it is asked for.

    Raises
    ------
    ValueError
        If upstream's cache for decoding is given.
    """
    if not (cache_params is None or isinstance(cache_params, MixerState)):
        raise ValueError("Decoding with a cache is not supported; pass use_cache=False.")
    residual = widened(hidden_states) if self.residual_in_fp32 else hidden_states
    mixed = self.mixer(
        self.norm(hidden_states.to(self.norm.weight.dtype)),
        cache_params=cache_params,
        attention_mask=attention_mask,
    )
    return residual + mixed


def mixer_state(block: Any, residual: Float[Tensor, "batch start hidden"]) -> MixerState:
    """The state that a block hands on after the tokens whose residual stream enters it."""
    mixer = block.mixer
    _, signal, step = _projections(mixer, block.norm(residual.to(block.norm.weight.dtype)), None)
    kept = mixer.conv_kernel_size - 1
    tail = signal[:, max(0, signal.shape[1] - kept) :]
    tail = nn.functional.pad(tail, (0, 0, kept - tail.shape[1], 0))
    convolved = mixer.act(convolution(signal, mixer.conv1d.weight, mixer.conv1d.bias))
    x, dt, A, B, _ = _scan_inputs(mixer, convolved, step)
    return MixerState(tail, final_state(x, dt, A, B))


def _projections(
    mixer: Any, hidden: Float[Tensor, "batch time hidden"], mask: Int[Tensor, "batch time"] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gate, input of the convolution, and steps."""
    sizes = [mixer.intermediate_size, mixer.conv_dim, mixer.num_heads]
    gate, signal, step = torch.split(mixer.in_proj(_masked(hidden, mask)), sizes, dim=-1)
    return gate, signal, step


def _scan_inputs(
    mixer: Any, convolved: Float[Tensor, "batch time conv_dim"], step: Float[Tensor, "batch time heads"]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``x, dt, A, B, C`` of the scan, whose head ``i`` reads group ``i mod groups``.

    Here it reads group ``i // (heads / groups)``: heads are put into the other order, and outputs back into
    theirs.
    """
    groups, size = mixer.n_groups, mixer.ssm_state_size
    x, B, C = torch.split(widened(convolved), [mixer.intermediate_size, groups * size, groups * size], dim=-1)
    dt = nn.functional.softplus(widened(step) + widened(mixer.dt_bias)).clamp(*mixer.time_step_limit)
    heads = (mixer.num_heads, mixer.head_dim)
    return (
        _by_turns(x.unflatten(-1, heads), groups, dim=2),
        _by_turns(dt, groups, dim=2),
        -torch.exp(_by_turns(widened(mixer.A_log), groups, dim=0)),
        B.unflatten(-1, (groups, size)),
        C.unflatten(-1, (groups, size)),
    )


def _by_turns(x: Tensor, groups: int, dim: int) -> Tensor:
    """Heads (groups, heads of a group) in the order (heads of a group, groups)."""
    if groups == 1:
        return x
    return x.unflatten(dim, (groups, -1)).transpose(dim, dim + 1).flatten(dim, dim + 1)


def _in_order(y: Float[Tensor, "batch time heads head_dim"], groups: int) -> Tensor:
    """The inverse of :func:`_by_turns`."""
    return y if groups == 1 else y.unflatten(2, (-1, groups)).transpose(2, 3).flatten(2, 3)


def _over_root_mean_square(x: Float[Tensor, "*batch width"], epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)


def _masked(x: Float[Tensor, "batch time width"], mask: Int[Tensor, "batch time"] | None) -> Tensor:
    """Zeros at padding; it may stand on the left, as helical's tokenizer puts it."""
    return x if mask is None else x * mask.unsqueeze(-1).to(x.dtype)
