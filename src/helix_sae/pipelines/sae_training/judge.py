"""Nodes that ask what the autoencoders are good for: to the model, and for telling concepts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from helix_sae.errors import AnalysisError
from helix_sae.pipelines.sae_training.parameters import ProbingParameters, SaeTrainingParameters

if TYPE_CHECKING:
    from helix_sae.activations import Activations
    from helix_sae.models.registry import ModelHandle
    from helix_sae.mrna.annotations import NucleotideAnnotations
    from helix_sae.sae import Sample, SparseAutoencoder
    from helix_sae.sae.codes import SiteCodes
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Activations = ModelHandle = NucleotideAnnotations = Sample = SiteCodes = SparseAutoencoder = Any

LOGGER = logging.getLogger(__name__)

PROBE_COLUMNS = (
    "site",
    "target",
    "n_sequences",
    "r2_clean",
    "r2_reconstructed",
    "r2_mean_ablated",
    "r2_kept",
)


def judge_held_out(
    saes: Mapping[str, SparseAutoencoder], holdout: Sequence[Mapping[str, np.ndarray]], config: str
) -> pd.DataFrame:
    """Rows of ``sae_metrics`` for autoencoders that are there, under the name of a configuration.

    Where their features began is not known of them.
    """
    from helix_sae.sae import evaluate_sae
    from helix_sae.sae.stability import random_match

    rows: list[dict[str, Any]] = []
    for site, sae in saes.items():
        batches = [batch[site] for batch in holdout]
        summary = evaluate_sae(sae, batches, f"site {site}").summary  # pyright: ignore[reportArgumentType]
        chance = {"start_cosine": np.nan, "chance_cosine": random_match(sae.d_sae, sae.d_in)}
        rows.append(
            {"site": site, "config": config, "seed": 0, **summary, **chance, "untrained_cosine": np.nan}
        )
    return pd.DataFrame(rows)


def run_on(
    handle: ModelHandle,
    activations: Activations,
    saes: dict[str, SparseAutoencoder],
    table: pd.DataFrame,
    parameters: SaeTrainingParameters,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the model on from the reconstructions of held-out sequences.

    Returns
    -------
    sae_downstream : DataFrame
        Embedding cosine and next-token cross-entropy of each site (``downstream_measures``).
    sae_probe_kept : DataFrame
        Held-out R2 of read-outs of the embedding, undisturbed and from the reconstruction.
    """
    from helix_sae.models.registry import open_model
    from helix_sae.mrna.tokens import tokenize_table
    from helix_sae.sae import downstream_measures, run_spliced

    activations.check_model(handle.fingerprint)
    model = open_model(handle)
    held = _draw(table, "validation", parameters.downstream.n_sequences)
    fitted = _draw(table, "discovery", parameters.downstream.n_fitted)
    tokens = tokenize_table(held, handle.codon_markers)
    outcomes = run_spliced(model, tokens, saes, _means(activations, table, list(saes)))
    measures = downstream_measures(outcomes)
    LOGGER.info("the model run on from reconstructions:\n%s", measures.round(3).to_string(index=False))
    embedding = model.embed(tokenize_table(fitted, handle.codon_markers))
    return measures, _probes(outcomes, embedding, fitted, held, parameters)


def probe_concepts(
    activations: Activations,
    saes: dict[str, SparseAutoencoder],
    sparse_codes: Mapping[str, SiteCodes],
    annotations: NucleotideAnnotations,
    table: pd.DataFrame,
    parameters: SaeTrainingParameters,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tell concepts by few features, and count where k-mer features absorb more general ones.

    Returns
    -------
    sparse_probing, feature_absorption : DataFrame
        By site; see ``sparse_probes`` and ``absorption``.
    """
    from helix_sae.sae import absorption, sparse_probes
    from helix_sae.sae.absorption import ABSORPTION_COLUMNS

    settings = parameters.probing
    parts = [_nucleotides(activations, annotations, table, s, settings) for s in ("discovery", "validation")]
    concepts = {
        name: (parts[0].labels[:, c], parts[1].labels[:, c]) for c, name in enumerate(annotations.concepts)
    }
    probing: list[pd.DataFrame] = []
    absorbed: list[pd.DataFrame] = []
    for site, sae in saes.items():
        fitted, judged = (_sample(activations, sparse_codes[site], site, part) for part in parts)
        probes = sparse_probes(
            fitted,
            judged,
            concepts,
            sizes=settings.sizes,
            max_tokens=settings.max_tokens,
            seed=parameters.seed,
        )
        probing.append(probes.assign(site=site))
        counted = absorption(
            fitted,
            judged,
            (parts[0].kmers, parts[1].kmers),
            sae.W_dec.detach().numpy().astype(np.float64),
            sae.b_dec.detach().numpy().astype(np.float64),
            max_tokens=settings.max_tokens,
            seed=parameters.seed,
        )
        absorbed.append(counted.assign(site=site))
    probes, rates = pd.concat(probing, ignore_index=True), pd.concat(absorbed, ignore_index=True)
    LOGGER.info("concepts told by few features:\n%s", _auc(probes))
    order = ["site", *ABSORPTION_COLUMNS]
    return probes[["site", *(c for c in probes if c != "site")]], rates[order]


class _Nucleotides(NamedTuple):
    """Nucleotides of one part of the clusters, and what is known of each; rows of the activations, tokens of a sequence."""

    sequence_id: list[str]
    counts: list[int]
    token_rows: Int[np.ndarray, " n"]
    token: Int[np.ndarray, " n"]
    labels: Bool[np.ndarray, "n n_concepts"]
    kmers: list[Int[np.ndarray, " n"]]


def _nucleotides(
    activations: Activations,
    annotations: NucleotideAnnotations,
    table: pd.DataFrame,
    split: str,
    settings: ProbingParameters,
) -> _Nucleotides:
    """Whole sequences of one part, in the order of a hash of their ids, up to the limit."""
    from helix_sae.sae import kmers_ending

    number = {name: i for i, name in enumerate(annotations.sequence_id)}
    first = np.asarray(annotations.offsets)
    sequences = table.set_index("sequence_id")["sequence"]
    names: list[str] = []
    token_rows: list[np.ndarray] = []
    token: list[np.ndarray] = []
    annotation_rows: list[np.ndarray] = []
    kmers: list[list[np.ndarray]] = [[] for _ in range(settings.longest_kmer)]
    taken = 0
    for name in by_hash([n for n in table.loc[table["split"] == split, "sequence_id"] if n in activations]):
        if taken >= settings.max_nucleotides:
            break
        rows = activations.rows(name)
        here = np.flatnonzero(rows.is_nucleotide)
        at = rows.nucleotide[here].astype(np.int64)
        names.append(name)
        token_rows.append(activations.first_rows([name])[0] + here)
        token.append(rows.token[here].astype(np.int64))
        annotation_rows.append(first[number[name]] + at)
        letters = np.array(["ACGU".find(c) for c in sequences[name]])
        for k, part in enumerate(kmers):
            part.append(kmers_ending(letters, np.array([0, len(letters)]), k + 1)[at])
        taken += len(here)
    if not token_rows:
        raise AnalysisError(f"No sequence of the {split} clusters has activations; extract them again.")
    labels = annotations.labels[np.concatenate(annotation_rows)].toarray().astype(bool)
    return _Nucleotides(
        names,
        [len(at) for at in token],
        np.concatenate(token_rows),
        np.concatenate(token),
        labels,
        [np.concatenate(part) for part in kmers],
    )


def _sample(activations: Activations, codes: SiteCodes, site: str, part: _Nucleotides) -> Sample:
    """Codes and activations of some nucleotides of a site; the activations may be a sample of the tokens, the codes are of all."""
    from helix_sae.sae import Sample

    number = {name: i for i, name in enumerate(codes.sequence_id)}
    first = np.asarray(codes.offsets)[[number[name] for name in part.sequence_id]]
    rows = np.repeat(first, part.counts) + part.token
    return Sample(codes.at(rows), activations.rows_at([site], part.token_rows)[site])


def _probes(
    outcomes: Any,
    embedding: Float[np.ndarray, "n hidden"],
    fitted: pd.DataFrame,
    held: pd.DataFrame,
    parameters: SaeTrainingParameters,
) -> pd.DataFrame:
    """Fit a ridge read-out of each target on discovery clusters; see what it keeps of its R2 on the others."""
    from helix_sae.causal.read_out import fit_probe
    from helix_sae.sae import probe_kept

    both = pd.concat([fitted, held], ignore_index=True)
    stacked = np.concatenate([embedding, outcomes["", "clean"].embedding])
    side = ["discovery"] * len(fitted) + ["validation"] * len(held)
    clusters = both["cluster"].astype(str).tolist()
    kept: list[pd.DataFrame] = []
    for target in parameters.downstream.targets or _numeric_targets(table=both):
        y = both[target].to_numpy(dtype=float, na_value=np.nan)
        try:
            probe = fit_probe(stacked, y, clusters, side, name=target).probe
        except AnalysisError as error:
            LOGGER.warning("no read-out of %s: %s", target, error)
            continue
        kept.append(probe_kept(outcomes, target, y[len(fitted) :], probe.predict))
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=pd.Index(PROBE_COLUMNS))


def _numeric_targets(table: pd.DataFrame) -> list[str]:
    named = [c for c in table.columns if str(c).startswith("functional_")]
    return [c for c in named if pd.api.types.is_numeric_dtype(table[c]) and table[c].nunique() > 2]


def _means(activations: Activations, table: pd.DataFrame, sites: Sequence[str]) -> dict[str, Any]:
    """Mean activation of each site over the discovery clusters."""
    import torch

    inside = set(table.loc[table["split"] == "discovery", "sequence_id"])
    means = activations.mean(sites, [name for name in activations.sequence_ids if name in inside])
    return {site: torch.from_numpy(mean.astype(np.float32)) for site, mean in means.items()}


def _draw(table: pd.DataFrame, split: str, n: int) -> pd.DataFrame:
    """At most ``n`` sequences of one part, by a hash of their ids."""
    part = table[table["split"] == split]
    chosen = by_hash(part["sequence_id"].tolist())[:n]
    return part.set_index("sequence_id", drop=False).loc[chosen].reset_index(drop=True)


def by_hash(names: Sequence[str]) -> list[str]:
    """Names in an order that depends on each name alone, not on what else there is."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def _auc(probes: pd.DataFrame) -> str:
    by_site = probes.pivot_table(index="site", columns="probe", values="auc", aggfunc="mean", sort=False)
    return by_site.round(3).to_string()
