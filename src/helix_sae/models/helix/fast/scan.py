"""The state-space scan of Mamba-2, as chunked matrix products.

The recurrence of Dao and Gu 2024 ("Transformers are SSMs", arXiv:2405.21060), for each head with state ``S``
of shape (state_size, head_dim)::

    S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T        y_t = S_t^T C_t + D x_t

is computed in chunks: inside a chunk as a masked attention-like product, between chunks through the states at
the chunk borders. :func:`helix_sae.models.helix.definition.recurrence` is the plain form, which the tests
hold this one to.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.models.helix.fast.factored_scan import by_group, by_head, evenly, head_columns, padded

PLAIN_CHUNK = 128
"""Tokens a chunk where decays are not split: longer ones cost more inside, shorter ones more between
chunks."""


def chunked_outputs(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    chunk: int = PLAIN_CHUNK,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> Float[Tensor, "batch time heads head_dim"]:
    """The outputs of :func:`helix_sae.models.helix.definition.recurrence`, for decays of any strength, on any device.

    ``chunk`` is the most tokens a chunk; all chunks of a sequence are of one length. Differentiable in
    everything.
    """
    batch, time, heads, head_dim = x.shape
    n, chunk = evenly(time, chunk)
    # A padded step has dt = 0: it neither decays the state nor adds to it.
    x_all, dt, B, C = (padded(t, n * chunk) for t in (x, dt, B, C))
    dt = dt.reshape(batch, n, chunk, heads)
    values = x_all.reshape(batch, n, chunk, heads, head_dim) * dt.unsqueeze(-1)
    # In float64, as differences of these sums are what counts; they are small beside everything else.
    log_decay = (dt.double() * A.double()).cumsum(2)
    B, C = (t.reshape(batch, n, chunk, *t.shape[2:]).transpose(2, 3) for t in (B, C))
    y = _within_chunks(values, log_decay, B, C)
    first = 0 if initial_state is not None else 1
    if first < n:
        before = _states_before(values, log_decay, B, initial_state)
        y[:, first:].add_(_from_states(before, log_decay[:, first:], C[:, first:], y.shape[3:]))
    return torch.addcmul(y.reshape(batch, n * chunk, heads, head_dim)[:, :time], x, D[:, None])


def final_state(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    *,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> Float[Tensor, "batch heads state head_dim"]:
    """The state after the last token, as one matrix product; no token at all leaves the state as it was.

    Arguments as :func:`helix_sae.models.helix.definition.recurrence`.
    """
    batch, _, heads, head_dim = x.shape
    groups, size = B.shape[2:]
    decay = dt.double() * A.double()
    total = decay.sum(1)
    after = torch.exp(total.unsqueeze(1) - decay.cumsum(1))
    weighted = by_group(x * (dt * after.to(x.dtype)).unsqueeze(-1), groups)
    state = torch.matmul(B.permute(0, 2, 3, 1), weighted).view(batch, groups, size, heads // groups, head_dim)
    state = state.permute(0, 3, 1, 2, 4).reshape(batch, heads, size, head_dim)
    if initial_state is None:
        return state
    return state + torch.exp(total).to(x.dtype)[..., None, None] * initial_state


def _within_chunks(
    values: Float[Tensor, "batch n chunk heads head_dim"],
    log_decay: Float[Tensor, "batch n chunk heads"],
    B: Float[Tensor, "batch n groups chunk state"],
    C: Float[Tensor, "batch n groups chunk state"],
) -> Float[Tensor, "batch n chunk heads head_dim"]:
    """What the tokens of a chunk owe to each other."""
    batch, n, chunk, heads, _ = values.shape
    groups = B.shape[2]
    scores = torch.matmul(C, B.transpose(-1, -2)).unsqueeze(2)
    # Around the middle of the chunk, so that rounding to the dtype of the values costs least.
    centred = (log_decay - log_decay[:, :, chunk // 2, None]).transpose(2, 3).to(values.dtype)
    mixing = _lower_triangular_decay(centred.contiguous())
    mixing = _times(mixing.view(batch, n, heads // groups, groups, chunk, chunk), scores)
    return torch.matmul(mixing.view(batch, n, heads, chunk, chunk), values.transpose(2, 3)).transpose(2, 3)


def _lower_triangular_decay(
    log_decay: Float[Tensor, "batch n heads chunk"],
) -> Float[Tensor, "batch n heads chunk chunk"]:
    """``exp(sum of log decays over (j, i])`` for j <= i, else 0."""
    chunk = log_decay.shape[-1]
    difference = log_decay.unsqueeze(-1) - log_decay.unsqueeze(-2)
    above = torch.ones(chunk, chunk, dtype=torch.bool, device=log_decay.device).triu(1)
    # Masked before the exponential: above the diagonal it could overflow, and infinity times zero has no
    # gradient.
    return difference.masked_fill_(above, -torch.inf).exp_()


def _states_before(
    values: Float[Tensor, "batch n chunk heads head_dim"],
    log_decay: Float[Tensor, "batch n chunk heads"],
    B: Float[Tensor, "batch n groups chunk state"],
    initial: Float[Tensor, "batch heads state head_dim"] | None,
) -> Float[Tensor, "batch m groups state columns"]:
    """States before each chunk; without an initial state, before each but the first, where it is zero."""
    n, head_dim = values.shape[1], values.shape[-1]
    groups = B.shape[2]
    end = log_decay[:, :-1, -1]
    to_end = torch.exp(end.unsqueeze(2) - log_decay[:, :-1]).to(values.dtype)
    added = torch.matmul(B[:, :-1].transpose(-1, -2), by_group(values[:, :-1] * to_end.unsqueeze(-1), groups))
    decay = head_columns(torch.exp(end).to(values.dtype), groups, head_dim)
    before: list[Tensor] = []
    if initial is not None:
        before.append(by_group(initial.transpose(1, 2), groups))
    elif n > 1:
        before.append(added[:, 0])
    for i in range(len(before) - 1 + int(initial is None), n - 1):
        before.append(torch.addcmul(added[:, i], before[-1], decay[:, i]))
    return torch.stack(before, dim=1)


def _from_states(
    before: Float[Tensor, "batch m groups state columns"],
    log_decay: Float[Tensor, "batch m chunk heads"],
    C: Float[Tensor, "batch m groups chunk state"],
    heads_and_dim: tuple[int, int] | torch.Size,
) -> Float[Tensor, "batch m chunk heads head_dim"]:
    """What the tokens of a chunk owe to the state before it."""
    y = by_head(torch.matmul(C, before), *heads_and_dim)
    return y * torch.exp(log_decay).to(y.dtype).unsqueeze(-1)


def _times(x: Tensor, factor: Tensor) -> Tensor:
    """``x * factor``, in place where no gradient needs what stood there."""
    return x * factor if x.requires_grad or factor.requires_grad else x.mul_(factor)
