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
from helix_sae.causal.interfaces import (
    DEFAULT_TOKEN_BUDGET,
    Dictionary,
    Direction,
    InterventionModel,
    Positions,
    ReadOut,
    decoder_directions,
    in_forward_order,
)
from helix_sae.errors import ConfigurationError
from helix_sae.models.batching import length_batches
from helix_sae.models.helix.model import record
from helix_sae.mrna.tokens import pad_batch


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

    ``delta`` (target's codes minus the source's) and ``error_delta`` are zero at tokens that are not patched; ``found`` has
    them at the patched ones alone. The error is what the dictionary leaves unexplained, ``x - decode(encode(x))``.
    """

    found: Differences
    x: Float[Tensor, "n time width"]
    delta: Float[Tensor, "n time features"]
    error_delta: Float[Tensor, "n time width"]
    target: Float[Tensor, "n time width"]


def pair_batches(
    model: InterventionModel,
    pairs: Sequence[TokenPair],
    positions: Positions,
    direction: Direction,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> Iterator[PairBatch]:
    """Batches of pairs of nearly equal length, similar in where they first differ.

    Raises
    ------
    ConfigurationError
        If there is no pair.
    """
    if not pairs:
        raise ConfigurationError(
            "There is no pair to intervene on; loosen the bounds on pairs (see the exclusions)."
        )
    turned = [p if direction == "source_to_target" else p.reversed() for p in pairs]
    order = np.argsort([p.first for p in turned], kind="stable")
    lengths = np.array([turned[i].source.ids.size for i in order], dtype=np.int64)
    for batch in length_batches(lengths, token_budget):
        yield _batch(model.device, order[batch], turned, positions)


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


class Experiment(NamedTuple):
    """What every intervention needs: the model, one dictionary a site with its decoder, the read-out.

    Attributes
    ----------
    model : InterventionModel
    sites : tuple of str
        In forward order.
    dictionaries, decoders : mapping of site
        ``decoders[site]`` has shape (features, width): the change of the activation for one unit of each code.
    probe : ReadOut
    """

    model: InterventionModel
    sites: tuple[str, ...]
    dictionaries: Mapping[str, Dictionary]
    decoders: Mapping[str, Float[Tensor, "features width"]]
    probe: ReadOut

    def read(
        self, hidden: Float[Tensor, "n time hidden"], is_nucleotide: Bool[Tensor, "n time"]
    ) -> Float[Tensor, " n"]:
        """The probe's value of last hidden states."""
        return self.probe(self.model.pool(hidden, is_nucleotide))

    def width(self, site: str) -> int:
        """Number of nodes at a site: its features and, last, the error node."""
        return self.decoders[site].shape[0] + 1


def experiment(
    model: InterventionModel,
    dictionaries: Mapping[str, Dictionary],
    probe: ReadOut,
    sites: Sequence[str] | None = None,
) -> Experiment:
    """Put an experiment together and check that every site can be intervened on.

    Parameters
    ----------
    sites : sequence of str, optional
        All that have a dictionary when absent.

    Raises
    ------
    ConfigurationError
        If a site has no dictionary, or there is none at all.
    UnknownSiteError
        If the model does not have a site.
    """
    ordered = in_forward_order(model, list(dictionaries) if sites is None else sites)
    missing = [site for site in ordered if site not in dictionaries]
    if missing or not ordered:
        raise ConfigurationError(
            f"No trained dictionary for site {', '.join(missing) or '(none given)'}; there are some for "
            f"{', '.join(dictionaries) or 'no site'}. Train one, or leave the site out of target_blocks."
        )
    model.check_sites(ordered)
    known: dict[str, Tensor | None] = {s: getattr(dictionaries[s], "directions", None) for s in ordered}
    told = {site: directions.detach() for site, directions in known.items() if directions is not None}
    # One token shows how wide a dictionary is that does not tell its directions.
    untold = [site for site in ordered if site not in told]
    like = model.capture(torch.tensor([[7]], device=model.device), untold) if untold else {}
    read_off = {
        site: decoder_directions(dictionaries[site], x.reshape(-1, x.shape[-1])) for site, x in like.items()
    }
    found = told | read_off
    decoders = {site: found[site] for site in ordered}
    return Experiment(model, ordered, {s: dictionaries[s] for s in ordered}, decoders, probe)


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
