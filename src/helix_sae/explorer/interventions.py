"""Setting a feature, and letting the model run on: the change of the read-outs, beside matched nulls.

The feature's code is overwritten on the nucleotides of a sequence by
:class:`helix_sae.causal.interventions.SitePatch`: the error of the reconstruction and the codes of all other
features stay in place. Two nulls make the same change of the activation, token by token of the same length,
in other directions: random ones, and those of features of the site that are about as often active.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helix_sae.causal.alignment import align_nucleotides
from helix_sae.causal.interventions import SitePatch
from helix_sae.causal.terms import DEFAULT_TOKEN_BUDGET
from helix_sae.errors import DataError
from helix_sae.explorer.read_outs import read_all
from helix_sae.explorer.records import Record
from helix_sae.explorer.session import Check, Feature, Reading, Session, go_on
from helix_sae.models.contract import record as note

N_RANDOM, N_FEATURES = 200, 20


class Setting(NamedTuple):
    """What a feature is set to.

    Attributes
    ----------
    to : {"zero", "value", "sequence"}
    value : float
        For ``value``: the activation, not negative.
    source : Record, optional
        For ``sequence``: whose activations stand in, nucleotide by aligned nucleotide; others stay.
    first, last : int
        Nucleotides that are touched, 0-based half-open; all by default.
    """

    to: Literal["zero", "value", "sequence"] = "zero"
    value: float = 0.0
    source: Record | None = None
    first: int = 0
    last: int | None = None


class Null(NamedTuple):
    """What changes of equal length do in other directions.

    Attributes
    ----------
    effects : dict of str to float64 (n,)
        Of each read-out.
    features : list of Feature
        Whose directions they are; empty for random ones.
    """

    effects: dict[str, Float[np.ndarray, " n"]]
    features: list[Feature]

    def p_value(self, read_out: str, effect: float) -> float:
        """Share of the null, the effect itself counted, whose effect is at least as large in either direction."""
        null = self.effects[read_out]
        return float((1 + (np.abs(null) >= abs(effect)).sum()) / (1 + len(null)))


class Intervention(NamedTuple):
    """What setting a feature does.

    Attributes
    ----------
    before, after : dict of str to float
        Read-outs.
    codes_before, codes_after : float32 (length,)
        The feature on each nucleotide.
    magnitude : float
        Norm of the change of the activation, averaged over nucleotides.
    random, alike : Null, optional
        Random directions, and features of equal density; None where the setting changes nothing.
    moved : list of (Feature, float)
        Features of later sites whose mean over nucleotides changes most, in shares of their usual largest
        activation.
    """

    before: dict[str, float]
    after: dict[str, float]
    codes_before: Float[np.ndarray, " length"]
    codes_after: Float[np.ndarray, " length"]
    magnitude: float
    random: Null | None
    alike: Null | None
    moved: list[tuple[Feature, float]]


@torch.no_grad()
def intervene(
    session: Session,
    record: Record,
    feature: Feature,
    setting: Setting,
    *,
    n_random: int = N_RANDOM,
    n_features: int = N_FEATURES,
    n_moved: int = 8,
    seed: int = 0,
    check: Check = go_on,
) -> Intervention:
    """Set a feature on a sequence, run the model on, and do the same in other directions.

    Parameters
    ----------
    session : Session
    record : Record
    feature : Feature
    setting : Setting
    n_random : int
        Random directions.
    n_features : int
        Features of the site, those with the nearest density.
    n_moved : int
        Later features to list.
    seed : int
        Of the random directions.
    check : callable
        Called before each pass.

    Raises
    ------
    DataError
        If the setting does not fit the sequence.
    """
    reading = session.read(record)
    target, touched = _target(session, reading, feature, setting)
    change = _patch(session, reading, feature, target, touched).change(
        reading.activations[feature.site].unsqueeze(0)
    )
    kept = reading.tokens.is_nucleotide
    codes = reading.codes[feature.site][:, feature.number]
    before = session.values(reading)
    same = Intervention(
        before,
        before,
        codes.cpu().numpy()[kept],
        torch.where(touched, target, codes).cpu().numpy()[kept],
        0.0,
        None,
        None,
        [],
    )
    lengths = change[0].norm(dim=1)
    if not bool((lengths > 0).any()):
        return same
    own, moved = _run_on(session, reading, feature.site, change, watch=True)
    alike = alike_features(session, feature, n_features)
    signed = lengths * torch.sign(target - codes)
    null = partial(_in_directions, session, reading, feature.site, signed, before, check)
    drawn = np.random.default_rng(seed).standard_normal((n_random, change.shape[2]))
    directions = session.dictionaries[feature.site].directions.detach()
    return same._replace(
        after={name: float(y[0]) for name, y in own.items()},
        magnitude=float(lengths.sum() / kept.sum()),
        random=Null(null(torch.from_numpy(drawn).to(change)), []),
        alike=Null(null(directions[[f.number for f in alike]]), alike),
        moved=moved[:n_moved],
    )


def alike_features(session: Session, feature: Feature, n: int) -> list[Feature]:
    """The features of the same site whose density is nearest, silent ones left out."""
    density = session.reference.density[feature.site]
    others = [i for i in np.flatnonzero(density > 0) if i != feature.number]
    # Densities span orders of magnitude, so they are near by their ratio.
    own = np.log(max(density[feature.number], 1e-6))
    others.sort(key=lambda i: abs(float(np.log(density[i]) - own)))
    return [Feature(feature.site, int(i)) for i in others[:n]]


def _target(
    session: Session, reading: Reading, feature: Feature, setting: Setting
) -> tuple[Float[Tensor, " time"], Bool[Tensor, " time"]]:
    """The code that each token gets, and which tokens are touched."""
    n = len(reading.record.sequence)
    last = n if setting.last is None else setting.last
    if not 0 <= setting.first < last <= n:
        raise DataError(f"Positions {setting.first} to {last} do not lie in a sequence of {n} nt.")
    codes = reading.codes[feature.site][:, feature.number]
    rows = np.flatnonzero(reading.tokens.is_nucleotide)
    chosen = np.zeros(codes.shape[0], dtype=bool)
    target = torch.zeros_like(codes)
    if setting.to == "value":
        if not np.isfinite(setting.value) or setting.value < 0:
            raise DataError(f"An activation is a number from 0 on, not {setting.value}.")
        target += setting.value
    if setting.to == "sequence":
        if setting.source is None:
            raise DataError("Give the sequence whose activations are to stand in.")
        source = session.read(setting.source)
        own, other = align_nucleotides(reading.record.sequence, setting.source.sequence)
        inside = (own >= setting.first) & (own < last)
        values = source.on_letters(feature.site)[:, feature.number][other[inside]]
        target[torch.from_numpy(rows[own[inside]])] = torch.from_numpy(values).to(target)
        chosen[rows[own[inside]]] = True
    else:
        chosen[rows[setting.first : last]] = True
    return target, torch.from_numpy(chosen).to(codes.device)


def _patch(
    session: Session,
    reading: Reading,
    feature: Feature,
    target: Float[Tensor, " time"],
    touched: Bool[Tensor, " time"],
) -> SitePatch:
    """The edit of :mod:`helix_sae.causal` that overwrites this feature alone."""
    sae = session.dictionaries[feature.site]
    codes = reading.codes[feature.site].clone()
    codes[:, feature.number] = target
    nodes = np.zeros(sae.d_sae + 1, dtype=bool)
    nodes[feature.number] = True
    error = torch.zeros_like(reading.activations[feature.site])
    decoder = sae.directions.detach()
    return SitePatch(sae, decoder, codes[None], error[None], touched[None]).choose(nodes)


def _run_on(
    session: Session,
    reading: Reading,
    site: str,
    change: Float[Tensor, "n time width"],
    watch: bool = False,
) -> tuple[dict[str, Float[np.ndarray, " n"]], list[tuple[Feature, float]]]:
    """Read-outs after adding changes at a site, from the first token that one of them touches."""
    model = session.model
    start = int(change.abs().amax(dim=(0, 2)).nonzero()[0])
    rows = torch.zeros(len(change), dtype=torch.int64, device=change.device)
    prefix = model.prefix_states(reading.cache, start).rows(rows)
    later = session.sites[session.sites.index(site) + 1 :] if watch else ()
    seen: dict[str, Tensor] = {}
    hidden = model.resume_suffix(
        site,
        reading.activations[site][start:] + change[:, start:],
        prefix,
        {name: partial(note, seen, name) for name in later},
    )
    embedding = model.pool_suffix(hidden, prefix, reading.is_nucleotide)
    moved: list[tuple[Feature, float]] = []
    for name, activation in seen.items():
        moved += _moves(session, reading, name, activation[0], start)
    moved.sort(key=lambda pair: -abs(pair[1]))
    return read_all(session.read_outs, embedding), moved


def _moves(
    session: Session, reading: Reading, site: str, activation: Float[Tensor, "suffix width"], start: int
) -> list[tuple[Feature, float]]:
    """Change of the mean of each feature of a later site."""
    weights = reading.is_nucleotide[0, start:].unsqueeze(1)
    codes = session.dictionaries[site].encode(activation)
    change = ((codes - reading.codes[site][start:]) * weights).sum(0) / reading.is_nucleotide.sum()
    usual = session.reference.highest[site]
    share = np.divide(change.cpu().numpy(), usual, out=np.zeros(len(usual)), where=usual > 0)
    return [(Feature(site, int(i)), float(share[i])) for i in np.flatnonzero(share)]


def _in_directions(
    session: Session,
    reading: Reading,
    site: str,
    lengths: Float[Tensor, " time"],
    before: dict[str, float],
    check: Check,
    directions: Float[Tensor, "n width"],
) -> dict[str, Float[np.ndarray, " n"]]:
    """Effects of changes of these (signed) lengths, token by token, in other directions."""
    unit = directions / directions.norm(dim=1, keepdim=True)
    a_pass = max(1, DEFAULT_TOKEN_BUDGET // len(lengths))
    parts: list[dict[str, np.ndarray]] = []
    for some in unit.split(a_pass):
        check()
        change = some.unsqueeze(1) * lengths.unsqueeze(1)
        parts.append(_run_on(session, reading, site, change)[0])
    return {
        name: np.concatenate([part[name] for part in parts]) - y if parts else np.empty(0)
        for name, y in before.items()
    }
