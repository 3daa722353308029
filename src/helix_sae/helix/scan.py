"""The state-space scan of Mamba-2, as chunked matrix products.

The recurrence of Dao and Gu 2024 ("Transformers are SSMs", arXiv:2405.21060), for each head with state ``S`` of shape
(state_size, head_dim)::

    S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T        y_t = S_t^T C_t + D x_t

is computed in chunks: inside a chunk as a masked attention-like product, between chunks through the states at the chunk
borders. :func:`recurrence` is the plain form, which the tests use as the oracle.

The decay between two tokens of a chunk is ``exp(c_i - c_j)``, with ``c`` the sum of the log decays so far. Where no
gradient is wanted and the decay of a chunk is not too strong for float32 it is split into ``exp(c_i - c_0)`` and
``exp(c_0 - c_j)``: then every head of a group shares one matrix of scores, and nothing of the size (chunk, chunk) has to
be made for each head. (Splitting in the middle of the chunk would allow stronger decays, but the last bits of a token
would then depend on tokens after it.) Otherwise the decay is computed as it stands.

Heads share the B and C of their group, so the products with states are made once a group, over all its heads' columns
together: heads are viewed as (heads of a group, groups), as head ``i`` belongs to group ``i mod groups``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from helix_sae.helix.kernels import installed_scan

DEFAULT_CHUNK = 128
"""Tokens a chunk: longer ones cost more inside, shorter ones more between chunks."""

FACTORED_CHUNKS = (64, 32, 16)
"""Tokens a chunk where the decay is split in two: the longest of them in which it is not too strong for that."""

_LARGEST_EXPONENT = 60.0
"""Of either factor of a decay; float32 ends at 87, and what the factors multiply needs room as well."""


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
        Most tokens a chunk; all chunks of a sequence are of one length.
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
    chunk: int = DEFAULT_CHUNK,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> Float[Tensor, "batch time heads head_dim"]:
    """The outputs of :func:`chunked_scan` without the state after the last token, which a whole pass has no use for."""
    inputs = (x, dt, A, B, C, D, initial_state)
    wants_gradient = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    if x.is_cuda and initial_state is None and B.shape[2] == 1 and not wants_gradient:
        # Groups of heads are numbered otherwise there, and a state to begin with is not asked for where it pays.
        kernel = installed_scan(_plain_outputs)
        if kernel is not None:
            return kernel(x, dt, A, B, C, D)
    factored = None if wants_gradient else _factored_chunk(x, dt, A, chunk)
    if factored is not None:
        return _factored_outputs(x, dt, A, B, C, D, factored, initial_state)
    return _plain_outputs(x, dt, A, B, C, D, chunk, initial_state)


def _plain_outputs(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    chunk: int = DEFAULT_CHUNK,
    initial_state: Float[Tensor, "batch heads state head_dim"] | None = None,
) -> Float[Tensor, "batch time heads head_dim"]:
    """:func:`scan_outputs` for decays of any strength, on any device, with gradients."""
    batch, time, heads, head_dim = x.shape
    n = -(-time // chunk)
    chunk = -(-time // n)
    pad = n * chunk - time
    if pad:
        # A padded step has dt = 0: it neither decays the state nor adds to it.
        x_all, B, C = (torch.nn.functional.pad(t, (0, 0, 0, 0, 0, pad)) for t in (x, B, C))
        dt = torch.nn.functional.pad(dt, (0, 0, 0, pad))
    else:
        x_all = x
    dt = dt.reshape(batch, n, chunk, heads)
    values = x_all.reshape(batch, n, chunk, heads, head_dim) * dt.unsqueeze(-1)
    # In float64, as differences of these sums are what counts; they are small beside everything else.
    log_decay = (dt.double() * A.double()).cumsum(2)
    B, C = (t.reshape(batch, n, chunk, *t.shape[2:]).transpose(2, 3) for t in (B, C))
    y = _within_chunks(values, log_decay, B, C)
    first = 0 if initial_state is not None else 1
    if first < n:
        before = _states_before(values, log_decay, B, initial_state)
        y[:, first:] += _from_states(before, log_decay[:, first:], C[:, first:], y.shape[3:])
    return torch.addcmul(y.reshape(batch, n * chunk, heads, head_dim)[:, :time], x, D[:, None])


def _factored_chunk(x: Tensor, dt: Tensor, A: Tensor, longest: int) -> int | None:
    """Tokens a chunk with which the decays can be split; None where they cannot, or should not be.

    Not on a GPU or in a compiled pass, as the decision waits for the numbers. Not where a gradient is wanted (see
    :func:`scan_outputs`) either, as it would be a difference of large numbers.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    time = x.shape[1]
    decay = (dt * A).neg_()
    for chunk in (size for size in FACTORED_CHUNKS if size <= longest):
        n = -(-time // chunk)
        length = -(-time // n)
        padded = torch.nn.functional.pad(decay, (0, 0, 0, n * length - time))
        chunks = padded.view(x.shape[0], n, length, x.shape[2])
        if float(chunks[:, :, 1:].sum(2).max()) <= _LARGEST_EXPONENT:
            return chunk
    return None


def _factored_outputs(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    chunk: int,
    initial: Float[Tensor, "batch heads state head_dim"] | None,
) -> Float[Tensor, "batch time heads head_dim"]:
    """:func:`scan_outputs` with the decays of a chunk split in two."""
    batch, time, heads, head_dim = x.shape
    groups = B.shape[2]
    n = -(-time // chunk)
    chunk = -(-time // n)
    pad = n * chunk - time
    x_all, C_all = x, C
    if pad:
        x_all, B, C = (torch.nn.functional.pad(t, (0, 0, 0, 0, 0, pad)) for t in (x, B, C))
        dt = torch.nn.functional.pad(dt, (0, 0, 0, pad))
    dt = dt.reshape(batch, n, chunk, heads)
    log_decay = (dt.double() * A.double()).cumsum(2)
    start, end = log_decay[:, :, 0], log_decay[:, :, -1]
    weight = torch.exp(start.unsqueeze(2) - log_decay).to(x.dtype).mul_(dt)
    values = _by_group(x_all.reshape(batch, n, chunk, heads, head_dim) * weight.unsqueeze(-1), groups)
    B, C = (t.reshape(batch, n, chunk, *t.shape[2:]).transpose(2, 3) for t in (B, C))
    y = torch.matmul(torch.matmul(C, B.transpose(-1, -2)).tril_(), values)
    if n > 1:
        added = torch.matmul(B[:, :-1].transpose(-1, -2), values[:, :-1])
        y[:, 1:] += torch.matmul(C[:, 1:], _scaled_states(added, start, end, (heads, head_dim)))
    y = _by_head(y, heads, head_dim)
    y *= torch.exp(log_decay - start.unsqueeze(2)).to(x.dtype).unsqueeze(-1)
    y = y.view(batch, n * chunk, heads, head_dim)[:, :time]
    if initial is not None:
        since = torch.cat([torch.zeros_like(end[:, :1]), end[:, :-1]], dim=1).cumsum(1)
        decay = torch.exp(log_decay + since.unsqueeze(2)).view(batch, n * chunk, heads)[:, :time]
        y.addcmul_(_from_initial(initial, C_all, groups), decay.to(x.dtype).unsqueeze(-1))
    return y.addcmul_(x, D[:, None])


def _from_initial(
    initial: Float[Tensor, "batch heads state head_dim"],
    C: Float[Tensor, "batch time groups state"],
    groups: int,
) -> Float[Tensor, "batch time heads head_dim"]:
    """What each token reads in the initial state, before it decays."""
    batch, heads, _, head_dim = initial.shape
    shared = batch > 1 and initial.stride(0) == 0  # one state expanded to many sequences: one large product
    state = _by_group((initial[:1] if shared else initial).transpose(1, 2), groups)
    read = C.reshape(1, -1, *C.shape[2:]) if shared else C
    y = _by_head(torch.matmul(read.transpose(1, 2), state), heads, head_dim)
    return y.view(batch, C.shape[1], heads, head_dim) if shared else y


def _scaled_states(
    added: Float[Tensor, "batch n_1 groups state columns"],
    start: Float[Tensor, "batch n heads"],
    end: Float[Tensor, "batch n heads"],
    heads_and_dim: tuple[int, int],
) -> Float[Tensor, "batch n_1 groups state columns"]:
    """What earlier chunks leave in the state before each chunk but the first, decayed to the first token of that chunk.

    Made of ``added``, what each chunk adds to the state, and in its place.
    """
    groups, (heads, head_dim) = added.shape[2], heads_and_dim

    def columns(log_decay: Tensor) -> Tensor:
        """Factors of the heads as factors of the columns, (..., groups, 1, columns)."""
        factor = torch.exp(log_decay).to(added.dtype)
        split = factor.view(*factor.shape[:-1], heads // groups, groups).transpose(-1, -2)
        return split.repeat_interleave(head_dim, dim=-1).unsqueeze(-2)

    # From the first token of a chunk to its last, and on to the first of the next: by turns, as their product might be too
    # small for float32.
    to_end, onward = columns(end[:, :-1] - start[:, :-1]), columns(start)
    # In place, one chunk after another: there may be many, and each state is as large as what a chunk adds to it.
    for k in range(added.shape[1]):
        if k:
            added[:, k] += added[:, k - 1]
        added[:, k].mul_(to_end[:, k]).mul_(onward[:, k + 1])
    return added


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
    weighted = _by_group(x * (dt * after.to(x.dtype)).unsqueeze(-1), groups)
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
    batch, n, _, heads, head_dim = values.shape
    groups, _size = B.shape[2], B.shape[4]
    per_group = heads // groups
    end = log_decay[:, :-1, -1]
    to_end = torch.exp(end.unsqueeze(2) - log_decay[:, :-1]).to(values.dtype)
    added = torch.matmul(
        B[:, :-1].transpose(-1, -2), _by_group(values[:, :-1] * to_end.unsqueeze(-1), groups)
    )
    decay = (
        torch.exp(end)
        .to(values.dtype)
        .view(batch, n - 1, per_group, groups)
        .transpose(2, 3)
        .repeat_interleave(head_dim, dim=3)
    )
    before: list[Tensor] = []
    if initial is not None:
        before.append(_by_group(initial.transpose(1, 2), groups))
    elif n > 1:
        before.append(added[:, 0])
    for i in range(len(before) - 1 + int(initial is None), n - 1):
        before.append(torch.addcmul(added[:, i], before[-1], decay[:, i].unsqueeze(2)))
    return torch.stack(before, dim=1)


def _from_states(
    before: Float[Tensor, "batch m groups state columns"],
    log_decay: Float[Tensor, "batch m chunk heads"],
    C: Float[Tensor, "batch m groups chunk state"],
    heads_and_dim: tuple[int, int] | torch.Size,
) -> Float[Tensor, "batch m chunk heads head_dim"]:
    """What the tokens of a chunk owe to the state before it."""
    y = _by_head(torch.matmul(C, before), *heads_and_dim)
    return y * torch.exp(log_decay).to(y.dtype).unsqueeze(-1)


def _by_group(
    x: Float[Tensor, "*batch rows heads head_dim"], groups: int
) -> Float[Tensor, "*batch groups rows columns"]:
    """Heads of a group side by side as columns (heads of the group, head_dim); without a copy for one group."""
    *batch, rows, heads, head_dim = x.shape
    split = x.reshape(*batch, rows, heads // groups, groups, head_dim)
    return split.movedim(-2, -4).reshape(*batch, groups, rows, (heads // groups) * head_dim)


def _by_head(
    y: Float[Tensor, "*batch groups rows columns"], heads: int, head_dim: int
) -> Float[Tensor, "*batch rows heads head_dim"]:
    """The inverse of :func:`_by_group`; without a copy for one group."""
    *batch, groups, rows, _ = y.shape
    split = y.view(*batch, groups, rows, heads // groups, head_dim).movedim(-4, -2)
    return split.reshape(*batch, rows, heads, head_dim)


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
