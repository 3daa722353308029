"""An experiment: whose prediction is explained, by which features, on which pairs of sequences, and how they are patched.

Everything that intervenes starts from one::

    exp = Experiment(model, saes, read_out, align_table(pairs), positions="nucleotides")
    atp = exp.effects("atp")
    exact = exp.effects("exact", nodes=screen(atp, 24))
    circuit = exp.acdc(attribution(exact, orientation(exact, pairs)), taus=[0.001, 0.01])

The methods are the functions of the modules that they name, which take an experiment first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helix_sae.causal.terms import (
    DEFAULT_TOKEN_BUDGET,
    Dictionary,
    Direction,
    Method,
    Positions,
    ReadOut,
    decoder_directions,
)
from helix_sae.errors import ConfigurationError
from helix_sae.models.contract import Model

if TYPE_CHECKING:
    import pandas as pd

    from helix_sae.causal.acdc import Acdc
    from helix_sae.causal.alignment import TokenPair
    from helix_sae.causal.comparison import Comparison
    from helix_sae.causal.curves import Curve, CurveKind, Ranking
    from helix_sae.causal.effects import Effects
    from helix_sae.causal.interventions import GroupOutcome, NodeSet


@dataclass(frozen=True, eq=False)
class Experiment:
    """A model, one dictionary a site, what is read out, aligned pairs, and how the pairs are patched.

    Attributes
    ----------
    model : Model
    dictionaries : mapping of site to Dictionary
        Trained autoencoders, or baselines with the same interface.
    read_out : ReadOut
        What is explained.
    pairs : sequence of TokenPair
        From :func:`helix_sae.causal.alignment.align_table`.
    direction : {"source_to_target", "target_to_source"}
        Which sequence of a pair is run, and which gives the values that are patched in.
    positions : {"nucleotides", "tokens", "edited"}
        Which aligned tokens a patch touches.
    token_budget : int
        Tokens in one pass. It changes the speed, not the result.

    Raises
    ------
    ConfigurationError
        If there is no dictionary, or no pair.
    UnknownSiteError
        If the model lacks the site of a dictionary.
    """

    model: Model
    dictionaries: Mapping[str, Dictionary]
    read_out: ReadOut
    pairs: Sequence[TokenPair]
    direction: Direction = "source_to_target"
    positions: Positions = "nucleotides"
    token_budget: int = DEFAULT_TOKEN_BUDGET

    def __post_init__(self) -> None:
        if not self.dictionaries:
            raise ConfigurationError(
                "There is no trained dictionary to intervene with. Train one, or name a site that has one in "
                "target_blocks."
            )
        self.model.check_sites(list(self.dictionaries))
        if not len(self.pairs):
            raise ConfigurationError(
                "There is no pair to intervene on; loosen the bounds on pairs (see the exclusions)."
            )

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites that have a dictionary, in the order in which the forward pass reaches them."""
        return tuple(sorted(self.dictionaries, key=self.model.site_names.index))

    @cached_property
    def decoders(self) -> dict[str, Float[Tensor, "features width"]]:
        """By site: the change of the activation for one unit of each code."""
        told = {s: getattr(self.dictionaries[s], "directions", None) for s in self.sites}
        # One token shows how wide a dictionary is that does not tell its directions.
        untold = [site for site, directions in told.items() if directions is None]
        like = self.model.capture(torch.tensor([[7]], device=self.model.device), untold) if untold else {}
        return {
            site: decoder_directions(self.dictionaries[site], like[site].reshape(-1, like[site].shape[-1]))
            if directions is None
            else directions.detach()
            for site, directions in told.items()
        }

    def width(self, site: str) -> int:
        """Number of nodes at a site: its features and, last, the error node."""
        return self.decoders[site].shape[0] + 1

    @property
    def widths(self) -> dict[str, int]:
        """Number of nodes of every site."""
        return {site: self.width(site) for site in self.sites}

    def read(
        self, hidden: Float[Tensor, "n time hidden"], is_nucleotide: Bool[Tensor, "n time"]
    ) -> Float[Tensor, " n"]:
        """What is read out of last hidden states."""
        return self.read_out(self.model.pool(hidden, is_nucleotide))

    def metadata(self, estimator: str, **more: Any) -> dict[str, Any]:
        """What every number of this experiment depends on; for :func:`helix_sae.causal.effects.stamp`."""
        return {
            "estimator": estimator,
            "direction": self.direction,
            "positions": self.positions,
            "error_handling": "a node of its own; in place when features are patched",
            "model": self.model.fingerprint,
            "dictionaries": {site: decoder_hash(self.decoders[site]) for site in self.sites},
            **more,
        }

    # ---------------------------------------------------------------- a part of it, or another

    def on(self, rows: Int[np.ndarray, " k"] | Bool[np.ndarray, " n_pairs"]) -> Experiment:
        """The same on some of the pairs, by their numbers or a mask."""
        return replace(self, pairs=[self.pairs[int(i)] for i in np.arange(len(self.pairs))[rows]])

    def at(self, sites: Sequence[str]) -> Experiment:
        """The same with the dictionaries of some sites.

        Raises
        ------
        ConfigurationError
            If a site has no dictionary.
        """
        missing = [site for site in sites if site not in self.dictionaries]
        if missing:
            raise ConfigurationError(
                f"No trained dictionary for site {', '.join(missing)}; there are some for "
                f"{', '.join(self.sites)}. Train one, or leave the site out of target_blocks."
            )
        return replace(self, dictionaries={site: self.dictionaries[site] for site in sites})

    def using(self, dictionaries: Mapping[str, Dictionary]) -> Experiment:
        """The same with other dictionaries."""
        return replace(self, dictionaries=dictionaries)

    def turned(self) -> Experiment:
        """The same in the other direction."""
        forwards = self.direction == "source_to_target"
        return replace(self, direction="target_to_source" if forwards else "source_to_target")

    # ---------------------------------------------------------------- what can be asked

    def effects(self, method: Method = "exact", **options: Any) -> Effects:
        """Effect of every node on every pair: :func:`helix_sae.causal.effects.effects`."""
        from helix_sae.causal.effects import effects  # noqa: PLC0415 - which takes an experiment

        return effects(self, method, **options)

    def patched(self, sets: Sequence[NodeSet]) -> GroupOutcome:
        """Read-outs with sets of nodes patched: :func:`helix_sae.causal.interventions.patched_outputs`."""
        from helix_sae.causal.interventions import patched_outputs  # noqa: PLC0415

        return patched_outputs(self, sets)

    def curves(self, ranking: Ranking, **options: Any) -> dict[CurveKind, Curve]:
        """Growing sets of nodes, patched and taken away: :func:`helix_sae.causal.curves.curves`."""
        from helix_sae.causal.curves import curves  # noqa: PLC0415

        return curves(self, ranking, **options)

    def acdc(self, attribution: Mapping[str, Float[np.ndarray, " nodes"]], **options: Any) -> Acdc:
        """Nested circuits: :func:`helix_sae.causal.acdc.acdc`."""
        from helix_sae.causal.acdc import acdc  # noqa: PLC0415

        return acdc(self, attribution, **options)

    def edges(self, nodes: NodeSet, signs: Float[np.ndarray, " n_pairs"], **options: Any) -> pd.DataFrame:
        """Which node acts through which other: :func:`helix_sae.causal.edges.circuit_edges`."""
        from helix_sae.causal.edges import circuit_edges  # noqa: PLC0415

        return circuit_edges(self, nodes, signs, **options)

    def compare(
        self, candidates: Mapping[str, Mapping[str, Dictionary]], table: pd.DataFrame, **options: Any
    ) -> Comparison:
        """Other dictionaries through the same machinery: :func:`helix_sae.causal.comparison.compare_dictionaries`."""
        from helix_sae.causal.comparison import compare_dictionaries  # noqa: PLC0415

        return compare_dictionaries(self, candidates, table, **options)


def decoder_hash(decoder: Float[Tensor, "features width"]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a dictionary's decoder."""
    return hashlib.sha256(decoder.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
