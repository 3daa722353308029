"""The scan of Mamba-2 with the decay between two tokens of a chunk split in two factors, and its gradient.

The decay from token ``j`` to token ``i`` is ``exp(c_i - c_j)``, with ``c`` the sum of the log decays since
the start of the chunk. Split into ``exp(c_i - c_0)`` and ``exp(c_0 - c_j)`` it goes into the rows and columns
of the products: every head of a group shares one matrix of scores, and nothing of the size (chunk, chunk) has
to be made for each head. (Splitting in the middle of the chunk would allow stronger decays, but the last bits
of a token would then depend on tokens after it.)

Heads share the B and C of their group, so the products with states are made once a group, over all its heads'
columns together: heads are viewed as (heads of a group, groups), as head ``i`` belongs to group ``i mod
groups``.

The gradient is written by hand: autograd's own would go through the factors, each of which has a gradient far
larger than that of the decay. Here it comes from the decays themselves: ``c_t`` raises what token ``t`` reads
of those before it, and lowers what it gives to those after (the difference that the kernels of Dao and Gu
2024, arXiv:2405.21060, take).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNKS = (256, 128, 64, 32, 16)
"""Tokens a chunk: the longest of them in which the decay is not too strong; of a long sequence not the
longest.

One chunk needs no states, and a few long ones need few: worth it as long as what lies inside is small.
"""

LARGEST_EXPONENT = 60.0
"""Of either factor of a decay; float32 ends at 87, and what the factors multiply needs room as well."""

LARGEST_EXPONENT_OF_GRADIENT = 40.0
"""The same where a gradient is wanted, which may be small itself; the smallest normal float32 is exp(-87)."""


def factored_chunk(
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    longest: int = CHUNKS[0],
    *,
    largest: float = LARGEST_EXPONENT,
) -> int | None:
    """Tokens a chunk with which the decays can be split; None where they cannot, or should not be.

    Not on a GPU or in a compiled pass, as the decision waits for the numbers.
    """
    if dt.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    batch, time, heads = dt.shape
    decay = (dt.detach() * A.detach()).neg_()
    sizes = CHUNKS if time <= 2 * CHUNKS[0] else CHUNKS[1:]
    for chunk in (size for size in sizes if size <= longest):
        n, length = evenly(time, chunk)
        chunks = padded(decay, n * length).view(batch, n, length, heads)
        if float(chunks[:, :, 1:].sum(2).max()) <= largest:
            return chunk
    return None


def factored_outputs(
    x: Float[Tensor, "batch time heads head_dim"],
    dt: Float[Tensor, "batch time heads"],
    A: Float[Tensor, " heads"],
    B: Float[Tensor, "batch time groups state"],
    C: Float[Tensor, "batch time groups state"],
    D: Float[Tensor, " heads"],
    chunk: int,
    initial: Float[Tensor, "batch heads state head_dim"] | None,
) -> Float[Tensor, "batch time heads head_dim"]:
    """:func:`helix_sae.models.helix.fast.choice.scan_outputs` with chunks of a length that :func:`factored_chunk` allows."""
    chunks = _cut(x, dt, A, B, C, chunk)
    y = by_head(_read(chunks, initial).read, *x.shape[2:])
    y *= chunks.onto.unsqueeze(-1)
    return _uncut(y, x.shape[1]).addcmul_(x, D[:, None])


class FactoredScan(torch.autograd.Function):
    """:func:`factored_outputs`, with a gradient in ``x, dt, B, C``: the scan, run backwards."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Float[Tensor, "batch time heads head_dim"],
        dt: Float[Tensor, "batch time heads"],
        A: Float[Tensor, " heads"],
        B: Float[Tensor, "batch time groups state"],
        C: Float[Tensor, "batch time groups state"],
        D: Float[Tensor, " heads"],
        chunk: int,
        initial: Float[Tensor, "batch heads state head_dim"] | None,
    ) -> Float[Tensor, "batch time heads head_dim"]:
        chunks = _cut(x, dt, A, B, C, chunk)
        found = _read(chunks, initial)
        ctx.save_for_backward(*chunks, *found, A, D)
        y = by_head(found.read, *x.shape[2:]) * chunks.onto.unsqueeze(-1)
        return _uncut(y, x.shape[1]).addcmul_(x, D[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        saved = ctx.saved_tensors
        n_chunks, n_found = len(_Chunks._fields), len(_Found._fields)
        chunks, found = _Chunks(*saved[:n_chunks]), _Found(*saved[n_chunks : n_chunks + n_found])
        x, dt, B, C = _backwards(chunks, found, grads[0], *saved[n_chunks + n_found :])
        return x, dt, None, B, C, None, None, None


class _Chunks(NamedTuple):
    """A batch of sequences, cut into chunks and padded; a padded step neither decays the state nor adds to it.

    Attributes
    ----------
    x : (batch, n, chunk, heads, head_dim)
    dt, off, onto : (batch, n, chunk, heads)
        Steps, and the two factors of the decay: ``exp(c_0 - c_j)`` and ``exp(c_i - c_0)``.
    first, through : (batch, n, heads)
        Log decay of the first token, and from it to the last, in float64.
    B, C : (batch, n, groups, chunk, state)
    """

    x: Tensor
    dt: Tensor
    off: Tensor
    onto: Tensor
    first: Tensor
    through: Tensor
    B: Tensor
    C: Tensor


class _Found(NamedTuple):
    """What a scan computes on its way, by group (see :func:`by_group`).

    Attributes
    ----------
    values : (batch, n, groups, chunk, columns)
        ``dt x``, each decayed off to the first token of its chunk.
    scores : (batch, n, groups, chunk, chunk)
        ``C_i B_j`` for ``j <= i``, else 0.
    read : (batch, n, groups, chunk, columns)
        What each token reads, not yet decayed from the first token of its chunk on to it.
    initial : (batch or 1, groups, state, columns), optional
        State before the first chunk, not decayed; one where all sequences share it.
    from_initial : (batch, groups, chunk, columns), optional
        What the tokens of the first chunk read in it, decayed to the first of them: a part of ``read``.
    states : (batch, n - 1, groups, state, columns), optional
        What earlier chunks leave in the state before each chunk but the first, decayed to the first token of
        that chunk.
    """

    values: Tensor
    scores: Tensor
    read: Tensor
    initial: Tensor | None
    from_initial: Tensor | None
    states: Tensor | None


def _cut(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int) -> _Chunks:
    n, length = evenly(x.shape[1], chunk)
    x, dt, B, C = (padded(t, n * length).unflatten(1, (n, length)) for t in (x, dt, B, C))
    # In float64, as differences of these sums are what counts; they are small beside everything else.
    log_decay = (dt.double() * A.double()).cumsum(2)
    first = log_decay[:, :, 0]
    since = log_decay - first.unsqueeze(2)
    off, onto = torch.exp(-since).to(x.dtype), torch.exp(since).to(x.dtype)
    return _Chunks(x, dt, off, onto, first, since[:, :, -1], B.transpose(2, 3), C.transpose(2, 3))


def _read(chunks: _Chunks, initial: Float[Tensor, "batch heads state head_dim"] | None) -> _Found:
    """What each token of each chunk reads: of its own chunk, and of the states that earlier ones leave."""
    B, C = chunks.B, chunks.C
    values = by_group(chunks.x * (chunks.off * chunks.dt).unsqueeze(-1), B.shape[2])
    scores = torch.matmul(C, B.transpose(-1, -2)).tril_()
    read = torch.matmul(scores, values)
    state = from_initial = None
    if initial is not None:
        shared = initial.stride(0) == 0  # one state, expanded to many sequences
        state = by_group((initial[:1] if shared else initial).transpose(1, 2), B.shape[2])
        from_initial = _read_shared(C[:, 0], state).mul_(_columns(chunks.first[:, 0], chunks))
        read[:, 0] += from_initial
    states = _states(chunks, values, state) if read.shape[1] > 1 else None
    if states is not None:
        read[:, 1:] += torch.matmul(C[:, 1:], states)
    return _Found(values, scores, read, state, from_initial, states)


def _read_shared(
    C: Float[Tensor, "batch groups chunk state"], state: Float[Tensor, "one groups state columns"]
) -> Float[Tensor, "batch groups chunk columns"]:
    """``C @ state``; of a state that all sequences share as one large product."""
    if len(state) == len(C):
        return torch.matmul(C, state)
    batch, groups, chunk, size = C.shape
    read = torch.matmul(C.transpose(0, 1).reshape(groups, batch * chunk, size), state[0])
    return read.view(groups, batch, chunk, -1).transpose(0, 1)


def _states(
    chunks: _Chunks,
    values: Float[Tensor, "batch n groups chunk columns"],
    initial: Float[Tensor, "one groups state columns"] | None,
) -> Float[Tensor, "batch n_1 groups state columns"]:
    """What earlier chunks leave, before each chunk but the first: see :class:`_Found`."""
    states = torch.matmul(chunks.B[:, :-1].transpose(-1, -2), values[:, :-1])
    to_last, onward = _from_first_to_first(chunks)
    if initial is not None:
        states[:, 0].addcmul_(initial, _columns(chunks.first[:, 0], chunks))
    # In place, one chunk after another: there may be many, and each state is as large as what a chunk adds to
    # it.
    for k in range(states.shape[1]):
        if k:
            states[:, k] += states[:, k - 1]
        states[:, k].mul_(to_last[:, k]).mul_(onward[:, k])
    return states


def _backwards(
    chunks: _Chunks, found: _Found, grad: Tensor, A: Tensor, D: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``x, dt, B, C`` from that of the outputs."""
    time, (n, length, heads, head_dim) = grad.shape[1], chunks.x.shape[1:]
    B, C = chunks.B, chunks.C
    y = padded(grad, n * length).unflatten(1, (n, length))
    read = by_group(y * chunks.onto.unsqueeze(-1), B.shape[2])
    scores = torch.matmul(read, found.values.transpose(-1, -2)).tril_()
    values = torch.matmul(found.scores.transpose(-1, -2), read)
    grad_B, grad_C = torch.matmul(scores.transpose(-1, -2), C), torch.matmul(scores, B)
    entering = _backwards_through_states(chunks, found, read, values, grad_B, grad_C)
    by_weight = by_head(values, heads, head_dim)
    weight = chunks.off * chunks.dt
    # What each token reads of others, less what it gives: the gradient of the log decay since the chunk's
    # first token ...
    given = (by_weight * chunks.x).sum(-1)
    balance = _by_columns(read * found.read, heads, head_dim).double() - given.double() * weight
    # ... and of the last one, what the chunk hands on to the next.
    balance[:, :-1, -1] += entering[:, 1:]
    log_decay = balance.flip(2).cumsum(2).flip(2)
    log_decay[:, :, 0] = entering  # the first token's own decay meets only what enters the chunk
    grad_dt = (log_decay * A.double()).to(given.dtype).addcmul_(given, chunks.off)
    grad_x = torch.addcmul(y * D[:, None], by_weight, weight.unsqueeze(-1))
    out = (_uncut(t, time) for t in (grad_x, grad_dt, grad_B.transpose(2, 3), grad_C.transpose(2, 3)))
    return tuple(out)  # pyright: ignore[reportReturnType]


def _backwards_through_states(
    chunks: _Chunks, found: _Found, read: Tensor, values: Tensor, grad_B: Tensor, grad_C: Tensor
) -> Float[Tensor, "batch n heads"]:
    """Adds what flows through the states to the gradients of values, B and C.

    Returns the gradient of the log decay of what enters each chunk; zero where nothing does.
    """
    (batch, n, _, heads, head_dim), B, C = chunks.x.shape, chunks.B, chunks.C
    entering = chunks.first.new_zeros(batch, n, heads)
    later = None
    if found.states is not None:
        to_last, onward = _from_first_to_first(chunks)
        grad_C[:, 1:] += torch.matmul(read[:, 1:], found.states.transpose(-1, -2))
        states = torch.matmul(C[:, 1:].transpose(-1, -2), read[:, 1:])
        for k in reversed(range(n - 1)):
            if k < n - 2:
                states[:, k] += states[:, k + 1]
            entering[:, k + 1] = _by_state(states[:, k] * found.states[:, k], heads, head_dim)
            states[:, k].mul_(onward[:, k]).mul_(to_last[:, k])
        values[:, :-1] += torch.matmul(B[:, :-1], states)
        grad_B[:, :-1] += torch.matmul(found.values[:, :-1], states.transpose(-1, -2))
        later = states[:, 0]
    if found.initial is not None and found.from_initial is not None:
        to_first = _columns(chunks.first[:, 0], chunks)
        grad_C[:, 0] += _read_shared(read[:, 0] * to_first, found.initial.transpose(-1, -2))
        entering[:, 0] = _by_state(read[:, 0] * found.from_initial, heads, head_dim)
        if later is not None:
            entering[:, 0] += _by_state(later * found.initial * to_first, heads, head_dim)
    return entering


def _from_first_to_first(chunks: _Chunks) -> tuple[Tensor, Tensor]:
    """Decays from the first token of each chunk but the last to its last, and on to the first of the next.

    Two factors to be used by turns, as their product might be too small for float32; (batch, n - 1, groups,
    1, columns).
    """
    return _columns(chunks.through[:, :-1], chunks), _columns(chunks.first[:, 1:], chunks)


def _columns(
    log_decay: Float[Tensor, "*batch heads"], chunks: _Chunks
) -> Float[Tensor, "*batch groups 1 columns"]:
    """Decays of the heads as factors of the columns."""
    return head_columns(torch.exp(log_decay).to(chunks.x.dtype), chunks.B.shape[2], chunks.x.shape[-1])


def head_columns(
    factor: Float[Tensor, "*batch heads"], groups: int, head_dim: int
) -> Float[Tensor, "*batch groups 1 columns"]:
    """A factor of each head as one of its columns, laid out as by :func:`by_group`."""
    split = factor.unflatten(-1, (-1, groups)).transpose(-1, -2)
    return split.repeat_interleave(head_dim, dim=-1).unsqueeze(-2)


def _by_columns(
    x: Float[Tensor, "*batch groups rows columns"], heads: int, head_dim: int
) -> Float[Tensor, "*batch rows heads"]:
    """Sums over the columns of each head."""
    return by_head(x, heads, head_dim).sum(-1)


def _by_state(
    x: Float[Tensor, "batch groups rows columns"], heads: int, head_dim: int
) -> Float[Tensor, "batch heads"]:
    """Sums over the rows and the columns of each head."""
    return _by_columns(x.sum(-2, keepdim=True), heads, head_dim).squeeze(1)


def by_group(
    x: Float[Tensor, "*batch rows heads head_dim"], groups: int
) -> Float[Tensor, "*batch groups rows columns"]:
    """Heads of a group side by side as columns (heads of the group, head_dim); without a copy for one group."""
    *batch, rows, heads, head_dim = x.shape
    split = x.reshape(*batch, rows, heads // groups, groups, head_dim)
    return split.movedim(-2, -4).reshape(*batch, groups, rows, (heads // groups) * head_dim)


def by_head(
    y: Float[Tensor, "*batch groups rows columns"], heads: int, head_dim: int
) -> Float[Tensor, "*batch rows heads head_dim"]:
    """The inverse of :func:`by_group`; without a copy for one group."""
    *batch, groups, rows, _ = y.shape
    split = y.view(*batch, groups, rows, heads // groups, head_dim).movedim(-4, -2)
    return split.reshape(*batch, rows, heads, head_dim)


def evenly(time: int, chunk: int) -> tuple[int, int]:
    """Number and length of chunks of one length, none longer than ``chunk``."""
    n = -(-time // chunk)
    return n, -(-time // n)


def padded(x: Float[Tensor, "batch time *rest"], time: int) -> Float[Tensor, "batch padded *rest"]:
    """With zeros up to ``time``."""
    missing = time - x.shape[1]
    return torch.nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else x


def _uncut(x: Float[Tensor, "batch n chunk *rest"], time: int) -> Float[Tensor, "batch time *rest"]:
    return x.flatten(1, 2)[:, :time]
