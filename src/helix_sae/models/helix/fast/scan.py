"""The state-space scan of Mamba-2, as chunked matrix products.

The recurrence of Dao and Gu 2024 ("Transformers are SSMs", arXiv:2405.21060), for each head with state ``S`` of shape
(state_size, head_dim)::

    S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T        y_t = S_t^T C_t + D x_t

is computed in chunks: inside a chunk as a masked attention-like product, between chunks through the states at the chunk
borders. :func:`recurrence` is the plain form, which the tests use as the oracle.

On a CPU, where the decay of a chunk is not too strong for it, the products are those of
:mod:`helix_sae.models.helix.fast.factored_scan`; otherwise the decays between the tokens of a chunk are computed as they stand.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.models.helix.fast.factored_scan import (
    CHUNKS,
    LARGEST_EXPONENT_OF_GRADIENT,
    FactoredScan,
    by_group,
    by_head,
    evenly,
    factored_chunk,
    factored_outputs,
    head_columns,
    padded,
)
from helix_sae.models.helix.fast.kernels import installed_scan

PLAIN_CHUNK = 128
"""Tokens a chunk where decays are not split: longer ones cost more inside, shorter ones more between chunks."""


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
    chunk: int | None = None,
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
    chunk : int, optional
        Most tokens a chunk; all chunks of a sequence are of one length. What is fastest when absent.
    initial_state : (batch, heads, state, head_dim), optional
        State before the first token; zeros when absent.

    Returns
    -------
    ScanResult
        In the dtype of ``x``.
    """
    y = scan_outputs(x, dt, A, B, C, D, chunk=chunk, initial_state=initial_state)
    return ScanResult(y, final_state(x, dt, A, B, initial_state=initial_state))


def scan_outputs(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    *,
    chunk: int | None = None,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> Float[Tensor, "batch time heads head_dim"]:
    """The outputs of :func:`chunked_scan` without the state after the last token, which a whole pass has no use for."""
    wanting = _wanting_gradient(x, dt, A, B, C, D, initial_state)
    if x.is_cuda and initial_state is None and B.shape[2] == 1 and not wanting:
        # Groups of heads are numbered otherwise there, and a state to begin with is not asked for where it pays.
        kernel = installed_scan(_plain_outputs)
        if kernel is not None:
            return kernel(x, dt, A, B, C, D)
    longest = CHUNKS[0] if chunk is None else chunk
    if not wanting and (split := factored_chunk(dt, A, longest)):
        return factored_outputs(x, dt, A, B, C, D, split, initial_state)
    if wanting == "inputs" and (
        split := factored_chunk(dt, A, longest, largest=LARGEST_EXPONENT_OF_GRADIENT)
    ):
        return cast("Tensor", FactoredScan.apply(x, dt, A, B, C, D, split, initial_state))
    return _plain_outputs(x, dt, A, B, C, D, PLAIN_CHUNK if chunk is None else chunk, initial_state)


def _wanting_gradient(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None
) -> Literal["", "inputs", "weights"]:
    """Whether a gradient is wanted: in no more than what a frozen model computes of its tokens, or in others as well."""
    if not torch.is_grad_enabled():
        return ""
    if any(t is not None and t.requires_grad for t in (A, D, initial_state)):
        return "weights"
    return "inputs" if any(t.requires_grad for t in (x, dt, B, C)) else ""


def _plain_outputs(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    chunk: int = PLAIN_CHUNK,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> Float[Tensor, "batch time heads head_dim"]:
    """:func:`scan_outputs` for decays of any strength, on any device, with gradients."""
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

    Arguments as :func:`chunked_scan`.
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
    # Masked before the exponential: above the diagonal it could overflow, and infinity times zero has no gradient.
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
