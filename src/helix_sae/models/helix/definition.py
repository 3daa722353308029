"""What Helix-mRNA computes, as its papers have it: slow, plain, right in any precision.

A chain of residual blocks over embedded tokens: Mamba-2 mixers (M), gated feed-forwards (+), attention with a
feed-forward (*)::

    x <- x + mixer(norm(x))            x <- x + feed_forward(norm(x))

The forms that run (:mod:`helix_sae.models.helix.fast`) are held to these functions by tests.

References
----------
Dao and Gu 2024, "Transformers are SSMs", arXiv:2405.21060 (Mamba-2); Wood et al. 2025, "Helix-mRNA",
arXiv:2502.13785; Zhang and Sennrich 2019, arXiv:1910.07467 (the norm); Shazeer 2020, arXiv:2002.05202 (the
gated unit).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad, silu, softplus

from helix_sae.models.contract import widened


class ScanResult(NamedTuple):
    """Output of a scan and the state after its last token."""

    y: Float[Tensor, "batch time heads head_dim"]
    state: Float[Tensor, "batch heads state head_dim"]


def last_hidden(network: Any, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time hidden"]:
    """Last hidden states of a network of helical's modules."""
    x = network.embeddings.weight[ids]
    for layer in network.layers:
        x = block(layer, x)
    return norm(x, network.norm_f)


def block(layer: Any, x: Float[Tensor, "batch time hidden"]) -> Float[Tensor, "batch time hidden"]:
    """The residual stream after a block."""
    if hasattr(layer, "mixer"):
        return x + mixer(layer.mixer, norm(x, layer.norm))
    if not hasattr(layer, "self_attn"):
        return x + feed_forward(layer.feed_forward, norm(x, layer.input_layernorm))
    x = x + attention(layer.self_attn, norm(x, layer.input_layernorm))
    return x + feed_forward(layer.feed_forward, norm(x, layer.pre_ff_layernorm))


def mixer(m: Any, u: Float[Tensor, "batch time hidden"]) -> Float[Tensor, "batch time hidden"]:
    """A Mamba-2 mixer: ``(z, xBC, dt) = W u``, a short convolution, the scan, a gate, a norm, ``W_out``."""
    groups, size = m.n_groups, m.ssm_state_size
    z, xBC, dt = (u @ m.in_proj.weight.T).split([m.intermediate_size, m.conv_dim, m.num_heads], dim=-1)
    xBC = silu(convolution(xBC, m.conv1d.weight, m.conv1d.bias))
    x, B, C = xBC.split([m.intermediate_size, groups * size, groups * size], dim=-1)
    dt = softplus(dt + m.dt_bias).clamp(min=m.time_step_min)
    heads = x.unflatten(-1, (m.num_heads, m.head_dim))
    B, C = B.unflatten(-1, (groups, size)), C.unflatten(-1, (groups, size))
    y = recurrence(heads, dt, -torch.exp(m.A_log), B, C, m.D).y.flatten(2)
    return norm(y * silu(z), m.norm) @ m.out_proj.weight.T


def recurrence(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    *,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> ScanResult:
    """The scan, token by token: ``S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T`` and ``y_t = S_t^T C_t + D x_t``.

    Parameters
    ----------
    x : (batch, time, heads, head_dim)
    dt : (batch, time, heads)
        Step sizes, positive (after softplus and clamp).
    A : (heads,)
        Negative decay rates.
    B, C : (batch, time, groups, state)
        Head ``i`` reads group ``i mod groups``, as in helical's CPU path.
    D : (heads,)
        Skip weights.
    initial_state : (batch, heads, state, head_dim), optional
        State before the first token; zeros when absent.

    Returns
    -------
    ScanResult
        In the dtype of ``x``.
    """
    batch, time, heads, head_dim = x.shape
    groups, state_size = B.shape[2:]
    state = x.new_zeros(batch, heads, state_size, head_dim) if initial_state is None else initial_state
    B, C = (t.repeat(1, 1, heads // groups, 1) for t in (B, C))
    outputs: list[Tensor] = []
    for t in range(time):
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        state = decay * state + (dt[:, t, :, None] * B[:, t]).unsqueeze(-1) * x[:, t].unsqueeze(-2)
        outputs.append((state * C[:, t].unsqueeze(-1)).sum(-2) + D[:, None] * x[:, t])
    return ScanResult(torch.stack(outputs, dim=1), state)


def convolution(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels 1 kernel"],
    bias: Float[Tensor, " channels"] | None,
    tail: Float[Tensor, "batch kernel_minus_1 channels"] | None = None,
) -> Float[Tensor, "batch time channels"]:
    """Depthwise and causal: each channel's weighted sum over its last tokens.

    ``tail`` holds the inputs just before ``x``; zeros when absent.
    """
    kernel, time = weight.shape[-1], x.shape[1]
    before = pad(x, (0, 0, kernel - 1, 0)) if tail is None else torch.cat([tail.to(x.dtype), x], dim=1)
    out = before[:, kernel - 1 :] * weight[:, 0, kernel - 1]
    if bias is not None:
        out = out + bias
    for k in range(kernel - 1):
        out = torch.addcmul(out, before[:, k : k + time], weight[:, 0, k])
    return out


def attention(a: Any, x: Float[Tensor, "batch time hidden"]) -> Float[Tensor, "batch time hidden"]:
    """Causal attention with grouped queries and no positions: ``softmax(Q K^T / sqrt(d)) V``."""
    q, k, v = (
        (x @ p.weight.T).unflatten(-1, (-1, a.head_dim)).transpose(1, 2)
        for p in (a.q_proj, a.k_proj, a.v_proj)
    )
    shared = a.num_heads // a.num_key_value_heads
    k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
    scores = (q @ k.transpose(-1, -2) / math.sqrt(a.head_dim)).masked_fill(later, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ a.o_proj.weight.T


def feed_forward(f: Any, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
    """A gated linear unit: ``W_down (silu(W_gate x) * W_up x)``."""
    return (silu(x @ f.gate_proj.weight.T) * (x @ f.up_proj.weight.T)) @ f.down_proj.weight.T


def norm(x: Float[Tensor, "*batch width"], n: Any) -> Float[Tensor, "*batch width"]:
    """``w * x / sqrt(mean(x^2) + epsilon)``, in at least float32, given out in the precision of ``w``."""
    x = widened(x)
    return n.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + n.variance_epsilon)).to(
        n.weight.dtype
    )
