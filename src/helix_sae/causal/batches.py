"""Pairs as tensors: which tokens of a batch are patched, and with what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.causal.alignment import TokenPair, patched_rows
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.terms import (
    Dictionary,
    Positions,
)
from helix_sae.models.batching import MAX_PADDING, length_batches
from helix_sae.models.contract import Edit, StillTokens, record
from helix_sae.mrna.tokens import pad_batch

STEPWISE_PADDING = 0.2
"""Padding where each step waits for the one before and runs all pairs once: few large passes are then quicker than many
small ones, even with tokens that are run in vain."""


class PairBatch(NamedTuple):
    """Some pairs of nearly one length, padded on the right.

    Attributes
    ----------
    index : int64 (n,)
        Which pairs of the list these are.
    source_ids, target_ids : int64 (n, time)
    source_nucleotide, target_nucleotide : bool (n, time)
        Tokens that the pool averages over.
    aligned : int64 (n, source time)
        Target token that stands for each source token; 0 where ``patched`` is False.
    patched : bool (n, source time)
        Tokens that a patch may touch.
    first : int64 (n,)
        First source token that differs: nothing before it changes.
    """

    index: Int[np.ndarray, " n"]
    source_ids: Int[Tensor, "n time"]
    target_ids: Int[Tensor, "n target_time"]
    source_nucleotide: Bool[Tensor, "n time"]
    target_nucleotide: Bool[Tensor, "n target_time"]
    aligned: Int[Tensor, "n time"]
    patched: Bool[Tensor, "n time"]
    first: Int[np.ndarray, " n"]

    def align(
        self, x: Float[Tensor, "n target_suffix width"], start: int = 0
    ) -> Float[Tensor, "n suffix width"]:
        """Rows of the target, each where the source has the token that it stands for; both from token ``start`` on.

        Nothing may be patched before ``start``.
        """
        index = (self.aligned[:, start:] - start).clamp(min=0)
        return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class Differences(NamedTuple):
    """What differs at one site between the sides of a batch, at the patched tokens only.

    Attributes
    ----------
    row : int64 (m,)
        Pair of each patched token.
    codes : float (m, features)
        The target's codes less the source's.
    error : float (m, width)
        The same of the reconstruction errors.
    """

    row: Int[Tensor, " m"]
    codes: Float[Tensor, "m features"]
    error: Float[Tensor, "m width"]


class Site(NamedTuple):
    """One site of a batch: the source's activation, and what the target has instead at the same tokens.

    ``delta`` (target's codes minus the source's) and ``error_delta`` are zero at tokens that are not patched;
    ``found`` has them at the patched ones alone. The error is what the dictionary leaves unexplained,
    ``x - decode(encode(x))``.
    """

    found: Differences
    x: Float[Tensor, "n time width"]
    delta: Float[Tensor, "n time features"]
    error_delta: Float[Tensor, "n time width"]
    target: Float[Tensor, "n time width"]


def pair_batches(exp: Experiment, max_padding: float = MAX_PADDING) -> Iterator[PairBatch]:
    """Batches of pairs of nearly equal length, similar in where they first differ.

    Parameters
    ----------
    exp : Experiment
    max_padding : float
        Largest share of a batch that may be padding; see :data:`STEPWISE_PADDING`.
    """
    turned = [p if exp.direction == "source_to_target" else p.reversed() for p in exp.pairs]
    order = np.argsort([p.first for p in turned], kind="stable")
    lengths = np.array([turned[i].source.ids.size for i in order], dtype=np.int64)
    for batch in length_batches(lengths, exp.token_budget, max_padding):
        yield _batch(exp.model.device, order[batch], turned, exp.positions)


def _batch(
    device: torch.device, index: Int[np.ndarray, " n"], pairs: Sequence[TokenPair], positions: Positions
) -> PairBatch:
    chosen = [pairs[i] for i in index]
    source_ids, source_nucleotide = pad_batch([p.source for p in chosen])
    target_ids, target_nucleotide = pad_batch([p.target for p in chosen])
    aligned = np.zeros(source_ids.shape, dtype=np.int64)
    patched = np.zeros(source_ids.shape, dtype=bool)
    for row, pair in enumerate(chosen):
        rows = patched_rows(pair, positions)
        aligned[row, pair.source_row[rows]] = pair.target_row[rows]
        patched[row, pair.source_row[rows]] = True
    arrays = (source_ids, target_ids, source_nucleotide, target_nucleotide, aligned, patched)
    first = np.array([pair.first for pair in chosen], dtype=np.int64)
    return PairBatch(index, *(torch.from_numpy(a).to(device) for a in arrays), first)  # pyright: ignore[reportCallIssue]


def differences(
    dictionary: Dictionary,
    decoder: Float[Tensor, "features width"],
    patched: Bool[Tensor, "n time"],
    source: Float[Tensor, "n time width"],
    aligned: Float[Tensor, "n time width"],
) -> Differences:
    """Differences of codes and errors at one site; ``aligned`` is the target's activation (:meth:`PairBatch.align`)."""
    before, after = source[patched], aligned[patched]
    with torch.no_grad():
        codes = dictionary.encode(torch.cat([before, after]))
        m = len(before)
        moved = codes[m:] - codes[:m]
        # As decoding is affine: once, of the difference, in place of twice.
        explained = moved @ decoder
    return Differences(patched.nonzero()[:, 0], moved, after - before - explained)


def site_values(
    batch: PairBatch,
    dictionary: Dictionary,
    decoder: Float[Tensor, "features width"],
    source: Float[Tensor, "n time width"],
    target: Float[Tensor, "n target_time width"],
) -> Site:
    """Differences of codes and errors at one site token by token, and what a full patch puts there.

    ``decoder`` holds what one unit of each code adds to an activation.
    """
    aligned = batch.align(target)
    found = differences(dictionary, decoder, batch.patched, source, aligned)
    delta = source.new_zeros(*source.shape[:2], found.codes.shape[-1])
    error_delta = torch.zeros_like(source)
    delta[batch.patched], error_delta[batch.patched] = found.codes, found.error
    return Site(found, source, delta, error_delta, torch.where(batch.patched.unsqueeze(-1), aligned, source))


def encode(
    dictionary: Dictionary, x: Float[Tensor, "*tokens width"]
) -> tuple[Float[Tensor, "*tokens features"], Float[Tensor, "*tokens width"]]:
    """Codes and reconstruction errors of tokens."""
    flat = x.reshape(-1, x.shape[-1])
    with torch.no_grad():
        codes = dictionary.encode(flat)
        error = flat - dictionary.decode(codes)
    return codes.view(*x.shape[:-1], codes.shape[-1]), error.view(x.shape)


def observe(
    exp: Experiment,
    ids: Int[Tensor, "n time"],
    is_nucleotide: Bool[Tensor, "n time"],
) -> tuple[Float[Tensor, " n"], dict[str, Float[Tensor, "n time width"]]]:
    """Read-out and activations at the sites, in one pass of sequences as they are."""
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        hidden = exp.model.run(ids, {site: partial(record, seen, site) for site in exp.sites})
        return exp.read(hidden, is_nucleotide), seen


def unpatched(
    exp: Experiment, batch: PairBatch
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], dict[str, Tensor], dict[str, Tensor]]:
    """Run both sides of a batch as they are.

    Returns
    -------
    y_source, y_target : float (n,)
    source, target : mapping of site to float (n, time, width)
        Activations.
    """
    y_source, source = observe(exp, batch.source_ids, batch.source_nucleotide)
    y_target, target = observe(exp, batch.target_ids, batch.target_nucleotide)
    return y_source, y_target, source, target


def still_tokens(batch: PairBatch, start: int) -> StillTokens | None:
    """Tokens from ``start`` on that come before the first difference of their pair."""
    position = torch.arange(start, batch.source_ids.shape[1])
    still = (position < torch.from_numpy(batch.first).unsqueeze(1)).to(batch.source_ids.device)
    return StillTokens(still) if bool(still.any()) else None


class SourceRun:
    """The sources of a batch, ready to be run again with edits from the first token that differs on.

    Nothing before it moves, whatever is patched: what those tokens hand on is computed once.

    Parameters
    ----------
    exp : Experiment
    batch : PairBatch

    Attributes
    ----------
    cache : Cache
        Of the sources as they are.
    start : int
        The first token that differs in any pair.
    entering : float (n, time - start, width)
        The activation at the first site.
    """

    def __init__(self, exp: Experiment, batch: PairBatch) -> None:
        self.exp, self.batch = exp, batch
        self.start = min(int(batch.first.min()), batch.source_ids.shape[1] - 1)
        self.still = still_tokens(batch, self.start)
        with torch.no_grad():
            self.cache = exp.model.cache(batch.source_ids)
            self.prefix = exp.model.prefix_states(self.cache, self.start)
            self.entering = exp.model.at_site(exp.sites[0], self.cache)[:, self.start :]

    def read(self, edits: Mapping[str, Edit]) -> Float[Tensor, " n"]:
        """Read-out with edits at some sites, which see the tokens from ``start`` on; differentiable."""
        first = self.exp.sites[0]
        later = {site: edit for site, edit in edits.items() if site != first}
        value = edits[first](self.entering) if first in edits else self.entering
        hidden = self.exp.model.resume_suffix(first, value, self.prefix, later, still=self.still)
        pooled = self.exp.model.pool_suffix(hidden, self.prefix, self.batch.source_nucleotide)
        return self.exp.read_out(pooled)


class Pass(NamedTuple):
    """Pairs, and what is patched in them, that are run together.

    Attributes
    ----------
    rows : int64 (n_rows,)
        The pairs of this pass, rising.
    row : int64 (b,)
        Pair of each of its sequences.
    change : int64 (b,)
        What is patched in it: the number of a node, or of a set of nodes.
    first : int
        First token that any of them changes.
    """

    rows: Int[Tensor, " rows"]
    row: Int[Tensor, " b"]
    change: Int[Tensor, " b"]
    first: int


def passes(
    differs: Bool[Tensor, "n changes"], first: Int[Tensor, "n changes"], time: int, token_budget: int
) -> Iterator[Pass]:
    """All runs of changes that differ, in passes of at most about ``token_budget`` tokens.

    Pair by pair, and each pair's changes by their first token, by turns rising and falling: what is run
    together then starts at nearly the same token, and hardly any token is run in vain.

    Parameters
    ----------
    differs : bool (n, changes)
        What is run.
    first : int64 (n, changes)
        First token of each change.
    time : int
        Tokens of the batch.
    token_budget : int
    """
    row, change = differs.nonzero().unbind(1)
    starts = first[row, change]
    order = torch.from_numpy(
        np.lexsort(((starts * (1 - 2 * (row % 2))).cpu().numpy(), row.cpu().numpy()))
    ).to(row.device)
    row, change, starts = row[order], change[order], starts[order]
    begin, earliest = 0, time
    listed = starts.tolist()
    for i, start in enumerate(listed):
        if i > begin and (i + 1 - begin) * (time - min(earliest, start)) > token_budget:
            yield Pass(row[begin:i].unique(), row[begin:i], change[begin:i], earliest)
            begin, earliest = i, time
        earliest = min(earliest, start)
    if listed:
        yield Pass(row[begin:].unique(), row[begin:], change[begin:], earliest)
