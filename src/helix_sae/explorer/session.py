"""A model opened to be asked about single sequences: its autoencoders, its read-outs, and what is usual for them.

::

    session = Session(model, saes, heads_of(model), reference_of(model, saes, usual_records))
    reading = session.read(make_record("ACGAUG|AUGGCC"))
    strongest(session, reading, 10)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.errors import ConfigurationError, DataError
from helix_sae.explorer.read_outs import CalibratedReadOut, read_all
from helix_sae.explorer.records import Record, record_of
from helix_sae.models.contract import Model, record
from helix_sae.mrna.tokens import CodonMarkers, TokenizedSequence
from helix_sae.names import feature_name
from helix_sae.sae import SparseAutoencoder
from helix_sae.sae.fit import ERROR_999

Check = Callable[[], None]
"""Called between the parts of long work; raises what is to stop it."""


def go_on() -> None:
    """Nothing stops this work."""


class Feature(NamedTuple):
    """A feature by its site and number."""

    site: str
    number: int

    @property
    def name(self) -> str:
        """As everywhere, e.g. ``L4.mixer.466``."""
        return feature_name(self.site, self.number)


class Reference(NamedTuple):
    """What is usual: how features behave on sequences of the training.

    Attributes
    ----------
    density : dict of site to float (features,)
        Share of nucleotides on which each feature is active.
    highest : dict of site to float (features,)
        Largest activation on a nucleotide.
    lengths : (int, int)
        Shortest and longest of the sequences, in nucleotides.
    n_sequences : int
        That density and activation were measured on.
    """

    density: dict[str, Float[np.ndarray, " features"]]
    highest: dict[str, Float[np.ndarray, " features"]]
    lengths: tuple[int, int]
    n_sequences: int


class Reading(NamedTuple):
    """One sequence after a pass.

    Attributes
    ----------
    record : Record
    tokens : TokenizedSequence
    is_nucleotide : bool (1, time)
    cache : Cache
        To run on from.
    activations : dict of site to float (time, width)
    codes : dict of site to float (time, features)
        Rows of codon markers included; see ``on_letters``.
    embedding : float (1, hidden)
    """

    record: Record
    tokens: TokenizedSequence
    is_nucleotide: Bool[Tensor, "1 time"]
    cache: Any
    activations: dict[str, Float[Tensor, "time width"]]
    codes: dict[str, Float[Tensor, "time features"]]
    embedding: Float[Tensor, "1 hidden"]

    def on_letters(self, site: str) -> Float[np.ndarray, "length features"]:
        """Codes of a site, a row a nucleotide."""
        return self.codes[site].cpu().numpy()[self.tokens.is_nucleotide]


class Fit(NamedTuple):
    """How well the autoencoder of a site fits a sequence.

    Attributes
    ----------
    outside : float
        Share of nucleotides that are reconstructed worse than all but one in a thousand of the training's
        held-out tokens: about 0.001 for a sequence like those. NaN where the autoencoder does not say.
    error : float
        Mean squared error a dimension, in the unit of the activations.
    limit : float
        The error that one held-out token in a thousand exceeded.
    """

    outside: float
    error: float
    limit: float


@dataclass(frozen=True, eq=False)
class Session:
    """A model and all that is needed to answer for single sequences.

    Attributes
    ----------
    model : Model
    dictionaries : mapping of site to SparseAutoencoder
    read_outs : mapping of str to CalibratedReadOut
        By property, the one that is meant by default first; may be empty.
    reference : Reference
    codon_markers : {"cds", "none"}
    about : DataFrame
        What a run found out about each feature (the table ``features``), if there is one.
    title : str
        What stands behind: a run, or the shipped model.
    table : DataFrame
        The sequences of the run (``sequence_id, sequence, cds_start, cds_end`` and measured properties,
        ``functional_...``), so that each can be looked at whole; may be empty.

    Raises
    ------
    ConfigurationError
        If there is no autoencoder.
    UnknownSiteError
        If the model lacks the site of one.
    """

    model: Model
    dictionaries: Mapping[str, SparseAutoencoder]
    read_outs: Mapping[str, CalibratedReadOut]
    reference: Reference
    codon_markers: CodonMarkers = "cds"
    about: pd.DataFrame = field(default_factory=pd.DataFrame)
    title: str = "a model"
    table: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        if not self.dictionaries:
            raise ConfigurationError("There is no autoencoder to look through: train one, or name others.")
        self.model.check_sites(list(self.dictionaries))

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Sites that have an autoencoder, in the order in which the model reaches them."""
        return tuple(sorted(self.dictionaries, key=self.model.site_names.index))

    @cached_property
    def by_name(self) -> dict[str, Feature]:
        """Every feature by its name."""
        every = (Feature(site, i) for site in self.sites for i in range(self.dictionaries[site].d_sae))
        return {feature.name: feature for feature in every}

    def feature(self, name: str) -> Feature:
        """A feature by its name.

        Raises
        ------
        DataError
            If there is none.
        """
        found = self.by_name.get(name)
        if found is None:
            sites = ", ".join(self.sites)
            raise DataError(
                f"There is no feature {name[:80]!r}; names are like {next(iter(self.by_name))}, of {sites}."
            )
        return found

    @cached_property
    def _names(self) -> pd.Series:
        """Of the records of the run."""
        return self.table["sequence_id"].astype(str) if len(self.table) else pd.Series(dtype=str)

    def names_holding(self, text: str, most: int) -> list[str]:
        """Names of records of the run that hold a text, in either case; the first ones."""
        found = self._names.str.contains(text, case=False, regex=False)
        return self._names[found.astype(bool)].head(most).tolist()

    def own_record(self, name: str) -> tuple[Record, dict[str, float]]:
        """A record of the run by its name, and what was measured of it, by property.

        Raises
        ------
        DataError
            If there is none.
        """
        rows = self.table[(self._names == name).to_numpy()] if len(self.table) else self.table
        if not len(rows):
            raise DataError(f"There is no record {name[:80]!r} in what is served here.")
        row = rows.iloc[0].to_dict()
        measured = {str(key): value for key, value in row.items() if str(key).startswith("functional_")}
        known = {
            key: float(v) for key, v in measured.items() if isinstance(v, int | float) and math.isfinite(v)
        }
        return record_of(row), known

    def read_out(self, name: str | None = None) -> tuple[str, CalibratedReadOut]:
        """A read-out by its name; the first one without.

        Raises
        ------
        DataError
            If there is none.
        """
        if not self.read_outs:
            raise DataError("This model has no read-out: run the causal analysis with a target first.")
        name = next(iter(self.read_outs)) if name is None else name
        if name not in self.read_outs:
            raise DataError(f"There is no read-out {name[:80]!r}; there is {', '.join(self.read_outs)}.")
        return name, self.read_outs[name]

    @torch.no_grad()
    def read(self, one: Record) -> Reading:
        """Run the model over a sequence: activations, codes and embedding from one pass."""
        tokens = one.tokens(self.codon_markers)
        ids, is_nucleotide = self.model.tensors([tokens])
        seen: dict[str, Tensor] = {}
        with self.model.edited({site: partial(record, seen, site) for site in self.sites}):
            cache = self.model.cache(ids)
        last = self.model.site_names[-1]
        activations = {site: seen[site][0] for site in self.sites}
        hidden = self.model.resume(last, self.model.at_site(last, cache), cache)
        codes = {site: self.dictionaries[site].encode(x) for site, x in activations.items()}
        return Reading(
            one, tokens, is_nucleotide, cache, activations, codes, self.model.pool(hidden, is_nucleotide)
        )

    def values(self, reading: Reading) -> dict[str, float]:
        """What every read-out says of a sequence."""
        return {name: float(y[0]) for name, y in read_all(self.read_outs, reading.embedding).items()}

    @torch.no_grad()
    def fit(self, reading: Reading) -> dict[str, Fit]:
        """How far a sequence lies from what the autoencoders were trained on, by site."""
        kept = torch.from_numpy(reading.tokens.is_nucleotide)
        found: dict[str, Fit] = {}
        for site, sae in self.dictionaries.items():
            x = reading.activations[site]
            errors = (sae.decode(reading.codes[site]) - x).double().square().mean(1).cpu()[kept]
            limit = float(sae.origin.get(ERROR_999, float("nan")))
            outside = float((errors > limit).double().mean()) if np.isfinite(limit) else float("nan")
            found[site] = Fit(outside, float(errors.mean()), limit)
        return found

    def pooled(
        self, records: Sequence[Record], check: Check = go_on
    ) -> dict[str, Float[np.ndarray, "n features"]]:
        """Mean activation of every feature on every sequence, over its nucleotides."""
        tokens = [one.tokens(self.codon_markers) for one in records]
        out = {
            site: np.zeros((len(records), sae.d_sae), dtype=np.float32)
            for site, sae in self.dictionaries.items()
        }
        for index, codes, is_nucleotide in coded_batches(self.model, self.dictionaries, tokens):
            check()
            weights = is_nucleotide.unsqueeze(-1)
            for site, of in codes.items():
                out[site][index] = ((of * weights).sum(1) / weights.sum(1)).cpu().numpy()
        return out


@torch.no_grad()
def coded_batches(
    model: Model, dictionaries: Mapping[str, SparseAutoencoder], tokens: Sequence[TokenizedSequence]
) -> Iterator[tuple[np.ndarray, dict[str, Tensor], Tensor]]:
    """Codes of batches of sequences.

    Yields
    ------
    index : int (batch,)
        Which sequences.
    codes : dict of site to float (batch, time, features)
    is_nucleotide : bool (batch, time)
    """
    for index in model.batches(tokens):
        ids, is_nucleotide = model.tensors([tokens[i] for i in index])
        captured = model.capture(ids, list(dictionaries))
        yield index, {site: dictionaries[site].encode(x) for site, x in captured.items()}, is_nucleotide


def reference_of(
    model: Model,
    dictionaries: Mapping[str, SparseAutoencoder],
    records: Sequence[Record],
    codon_markers: CodonMarkers = "cds",
    lengths: Int[np.ndarray, " n"] | None = None,
) -> Reference:
    """What is usual on some sequences.

    Parameters
    ----------
    model, dictionaries
    records : sequence of Record
        A sample is enough.
    codon_markers : {"cds", "none"}
    lengths : int (n,), optional
        Of all sequences of the training, where ``records`` are a sample of them.

    Raises
    ------
    DataError
        If there is no sequence.
    """
    if not records:
        raise DataError("There is no sequence to learn from what is usual for the features.")
    active = {site: torch.zeros(sae.d_sae, dtype=torch.int64) for site, sae in dictionaries.items()}
    highest = {site: torch.zeros(sae.d_sae) for site, sae in dictionaries.items()}
    tokens = [one.tokens(codon_markers) for one in records]
    total = 0
    for _, codes, is_nucleotide in coded_batches(model, dictionaries, tokens):
        total += int(is_nucleotide.sum())
        for site, of in codes.items():
            kept = of[is_nucleotide].cpu()
            active[site] += (kept > 0).sum(0)
            highest[site] = torch.maximum(highest[site], kept.amax(0))
    every = np.array([len(one.sequence) for one in records]) if lengths is None else lengths
    return Reference(
        {site: (count.double() / total).numpy() for site, count in active.items()},
        {site: value.numpy() for site, value in highest.items()},
        (int(every.min()), int(every.max())),
        len(records),
    )
