"""Changing letters: what an edit does to read-outs and features, and what each single substitution would do.

The model is causal, so a substitution is run from its own token on, over what each block hands on of the
tokens before (:meth:`helix_sae.models.contract.Model.resume_suffix`). Substitutions of neighbouring letters
share a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from helix_sae.causal.alignment import align_nucleotides
from helix_sae.causal.terms import DEFAULT_TOKEN_BUDGET
from helix_sae.errors import DataError
from helix_sae.explorer.read_outs import read_all
from helix_sae.explorer.records import Record
from helix_sae.explorer.session import Check, Feature, Reading, Session, go_on
from helix_sae.models.contract import record as note
from helix_sae.mrna.tokens import VOCABULARY

LETTERS = "ACGU"


class Moved(NamedTuple):
    """What an edit does to one feature.

    Attributes
    ----------
    feature : Feature
    before, after : float32 (length before,), (length after,)
        Activation on each nucleotide.
    change : float
        Of the mean over nucleotides.
    largest : float
        Largest change on a nucleotide that both sequences have, in shares of the feature's usual largest
        activation.
    """

    feature: Feature
    before: Float[np.ndarray, " length_before"]
    after: Float[np.ndarray, " length_after"]
    change: float
    largest: float


class EditOutcome(NamedTuple):
    """What an edit does.

    Attributes
    ----------
    before, after : Reading
    aligned : int64 (2, n)
        Positions of the nucleotides that stand for each other.
    moved : list of Moved
        Features, the most moved first.
    """

    before: Reading
    after: Reading
    aligned: Int[np.ndarray, "2 n"]
    moved: list[Moved]


class Saturation(NamedTuple):
    """Effect of every single substitution.

    Attributes
    ----------
    first : int
        Position of the first column.
    read_outs : dict of str to float64 (4, n)
        Change of each read-out when the letter becomes A, C, G, U; 0 for the letter that is there.
    feature : float64 (4, n), optional
        Change of a feature's mean activation over all nucleotides.
    """

    first: int
    read_outs: dict[str, Float[np.ndarray, "4 n"]]
    feature: Float[np.ndarray, "4 n"] | None


def edit(session: Session, before: Record, after: Record, n: int = 12) -> EditOutcome:
    """Compare a sequence before and after an edit: substitutions, insertions, deletions, another start codon.

    Parameters
    ----------
    session : Session
    before, after : Record
    n : int
        Features to list.
    """
    a, b = session.read(before), session.read(after)
    aligned = align_nucleotides(before.sequence, after.sequence)
    scored: list[tuple[float, Feature]] = []
    for site in session.sites:
        usual = session.reference.highest[site]
        left, right = a.on_letters(site), b.on_letters(site)
        change = np.abs(left[aligned[0]] - right[aligned[1]]).max(axis=0, initial=0.0)
        share = np.divide(change, usual, out=np.zeros(len(usual)), where=usual > 0)
        scored += [(float(share[i]), Feature(site, int(i))) for i in np.flatnonzero(share > 0)]
    scored.sort(key=lambda pair: -pair[0])
    return EditOutcome(a, b, aligned, [_moved(a, b, feature, share) for share, feature in scored[:n]])


@torch.no_grad()
def saturation(
    session: Session,
    record: Record,
    *,
    feature: Feature | None = None,
    first: int = 0,
    last: int | None = None,
    check: Check = go_on,
) -> Saturation:
    """Effect of all single substitutions from position ``first`` to before ``last``.

    The coding region stays where it is, whatever becomes of its start or stop codon.

    Parameters
    ----------
    session : Session
    record : Record
    feature : Feature, optional
        A feature to watch beside the read-outs.
    first, last : int
        Positions, 0-based half-open; the whole sequence by default.
    check : callable
        Called before each pass.

    Raises
    ------
    DataError
        If there is no such position.
    """
    end = len(record.sequence) if last is None else last
    if not 0 <= first < end <= len(record.sequence):
        raise DataError(f"Positions {first} to {end} do not lie in a sequence of {len(record.sequence)} nt.")
    reading = session.read(record)
    rows = np.flatnonzero(reading.tokens.is_nucleotide)
    shape = (len(LETTERS), end - first)
    base = read_all(session.read_outs, reading.embedding)
    out = Saturation(
        first, {name: np.zeros(shape) for name in base}, None if feature is None else np.zeros(shape)
    )
    for position, letter, values, active in _substituted(session, reading, rows, first, end, feature, check):
        for name, y in values.items():
            out.read_outs[name][letter, position - first] = y - base[name][0]
        if out.feature is not None and active is not None:
            out.feature[letter, position - first] = active
    return out


def _substituted(
    session: Session,
    reading: Reading,
    rows: Int[np.ndarray, " length"],
    first: int,
    end: int,
    feature: Feature | None,
    check: Check,
) -> Iterator[tuple[int, int, dict[str, np.ndarray], np.ndarray | None]]:
    """Positions, letters, read-outs and changes of the feature's mean, pass by pass."""
    model = session.model
    site = model.site_names[0]  # what a token gives by itself
    ids = torch.tensor([[VOCABULARY[letter]] for letter in LETTERS], device=model.device)
    of_letter = model.capture(ids, [site])[site][:, 0]
    x = model.at_site(site, reading.cache)
    time, present = x.shape[1], reading.tokens.ids[rows]
    begin = first
    while begin < end:
        check()
        start = int(rows[begin])
        stop = min(end, begin + max(1, DEFAULT_TOKEN_BUDGET // (len(LETTERS) * (time - start))))
        at, letter = _changes(present, ids.squeeze(1).cpu().numpy(), begin, stop)
        same = torch.zeros(len(at), dtype=torch.int64, device=x.device)
        prefix = model.prefix_states(reading.cache, start).rows(same)
        value = x[:, start:].repeat(len(at), 1, 1)
        value[torch.arange(len(at)), torch.from_numpy(rows[at] - start)] = of_letter[letter]
        seen: dict[str, Tensor] = {}
        hooks = {} if feature is None else {feature.site: partial(note, seen, feature.site)}
        hidden = model.resume_suffix(site, value, prefix, hooks)
        embedding = model.pool_suffix(hidden, prefix, reading.is_nucleotide)
        read = read_all(session.read_outs, embedding)
        active = None if feature is None else _change_of_mean(session, reading, feature, seen, value, start)
        yield at, letter, read, active  # pyright: ignore[reportReturnType]
        begin = stop


def _changes(
    present: Int[np.ndarray, " length"], ids: Int[np.ndarray, " 4"], begin: int, stop: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Every substitution at these positions: where, and the number of the new letter."""
    at, letter = np.meshgrid(np.arange(begin, stop), np.arange(len(ids)), indexing="ij")
    real = present[at] != ids[letter]
    return at[real], letter[real]


def _change_of_mean(
    session: Session,
    reading: Reading,
    feature: Feature,
    seen: dict[str, Tensor],
    value: Float[Tensor, "n suffix width"],
    start: int,
) -> Float[np.ndarray, " n"]:
    """Change of a feature's mean over all nucleotides; before ``start`` nothing moves."""
    sae = session.dictionaries[feature.site]
    activation = seen.get(feature.site, value)  # the site where the change is made has no hook
    codes = sae.encode(activation)[..., feature.number].double()
    weights = reading.is_nucleotide[0, start:].double()
    base = reading.codes[feature.site][start:, feature.number].double()
    return (((codes - base) * weights).sum(1) / reading.is_nucleotide.sum()).cpu().numpy()


def _moved(a: Reading, b: Reading, feature: Feature, largest: float) -> Moved:
    before, after = (r.on_letters(feature.site)[:, feature.number] for r in (a, b))
    return Moved(feature, before, after, float(after.mean() - before.mean()), largest)
