"""The state-space scan of Mamba-2, as chunked matrix products.

The recurrence of Dao and Gu 2024 ("Transformers are SSMs", arXiv:2405.21060), for each head with state ``S`` of shape
(state_size, head_dim)::

    S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T        y_t = S_t^T C_t + D x_t

is computed in chunks: inside a chunk as a masked attention-like product, between chunks through the states at the chunk
borders. :func:`recurrence` is the plain form, which the tests use as the oracle.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

DEFAULT_CHUNK = 64


class ScanResult(NamedTuple):
    """Output of a scan and the state after its last token."""

    y: Float[Tensor, "batch time heads head_dim"]
    state: Float[Tensor, "batch heads state head_dim"]


def chunked_scan(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    *,
    chunk: int = DEFAULT_CHUNK,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> ScanResult:
    """Scan a batch of sequences.

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
    chunk : int
        Tokens a chunk. A sequence of at most twice this length is one chunk.
    initial_state : (batch, heads, state, head_dim), optional
        State before the first token; zeros when absent.

    Returns
    -------
    ScanResult
        In the dtype of ``x``.
    """
    batch, time, heads, head_dim = x.shape
    groups, state_size = B.shape[2:]
    chunk = time if time <= 2 * chunk else chunk
    pad = -time % chunk
    if pad:
        # A padded step has dt = 0: it neither decays the state nor adds to it.
        x, B, C = (torch.nn.functional.pad(t, (0, 0, 0, 0, 0, pad)) for t in (x, B, C))
        dt = torch.nn.functional.pad(dt, (0, 0, 0, pad))
    n = (time + pad) // chunk
    per_group = heads // groups

    # Heads are viewed as (per_group, groups), so that `i mod groups` is plain broadcasting over per_group.
    x_c = x.reshape(batch, n, chunk, heads, head_dim).transpose(2, 3)
    dt_c = dt.reshape(batch, n, chunk, heads).transpose(2, 3)
    B_c = B.reshape(batch, n, chunk, groups, state_size).transpose(2, 3)
    C_c = C.reshape(batch, n, chunk, groups, state_size).transpose(2, 3)

    log_decay = (dt_c * A[:, None]).cumsum(-1)
    x_dt = x_c * dt_c.unsqueeze(-1)
    scores = torch.matmul(C_c, B_c.transpose(-1, -2))
    mixing = _lower_triangular_decay(log_decay)
    mixing = (mixing.view(batch, n, per_group, groups, chunk, chunk) * scores.unsqueeze(2)).view_as(mixing)
    y = torch.matmul(mixing, x_dt)

    to_end = torch.exp(log_decay[..., -1:] - log_decay).unsqueeze(-1)
    B_heads = B_c.repeat(1, 1, per_group, 1, 1)
    added = torch.matmul(B_heads.transpose(-1, -2), x_dt * to_end)
    chunk_decay = torch.exp(log_decay[..., -1])
    before, last = _states_between_chunks(added, chunk_decay, initial_state)
    if before is not None:
        C_heads = C_c.repeat(1, 1, per_group, 1, 1)
        y = y + torch.exp(log_decay).unsqueeze(-1) * torch.matmul(C_heads, before)
    y = y.transpose(2, 3).reshape(batch, n * chunk, heads, head_dim)[:, :time]
    return ScanResult(y + D[:, None] * x[:, :time], last)


def _lower_triangular_decay(
    log_decay: Float[Tensor, "batch n heads chunk"],
) -> Float[Tensor, "batch n heads chunk chunk"]:
    """``exp(sum of log decays over (j, i])`` for j <= i, else 0."""
    chunk = log_decay.shape[-1]
    difference = log_decay.unsqueeze(-1) - log_decay.unsqueeze(-2)
    above = torch.ones(chunk, chunk, dtype=torch.bool, device=log_decay.device).triu(1)
    # Masked before the exponential: above the diagonal it could overflow, and infinity times zero has no gradient.
    return torch.exp(difference.masked_fill(above, -torch.inf))


def _states_between_chunks(
    added: Float[Tensor, "batch n heads state head_dim"],
    decay: Float[Tensor, "batch n heads"],
    initial: Float[Tensor, "batch heads state head_dim"] | None,
) -> tuple[Float[Tensor, "batch n heads state head_dim"] | None, Float[Tensor, "batch heads state head_dim"]]:
    """States before each chunk (None when all are zero) and after the last."""
    n = added.shape[1]
    if n == 1 and initial is None:
        return None, added[:, 0]
    state = torch.zeros_like(added[:, 0]) if initial is None else initial
    before: list[Tensor] = []
    for i in range(n):
        before.append(state)
        state = state * decay[:, i, :, None, None] + added[:, i]
    return torch.stack(before, dim=1), state


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
    """The same scan, token by token: the oracle. Arguments and result as :func:`chunked_scan`."""
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
