"""Nodes of the pretraining pipeline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.errors import ConfigurationError
from helix_sae.pipelines.pretraining.parameters import PretrainingParameters

if TYPE_CHECKING:
    from helix_sae.models.helix.model import HelixModel
    from helix_sae.models.helix.pretraining import Corpus
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Corpus = HelixModel = Any

LOGGER = logging.getLogger(__name__)


def train_mini(table: pd.DataFrame, parameters: PretrainingParameters) -> tuple[HelixModel, pd.DataFrame]:
    """Train the network and its heads; also the history of the training."""
    from helix_sae.models.helix.model import HelixModel
    from helix_sae.models.helix.pretraining import pretrain

    trained = pretrain(_corpus(table, parameters), parameters.architecture, parameters.training)
    history = trained.history.assign(stage="main")
    if parameters.finishing is not None:
        mixture = _mixture(table, parameters.finishing.shares)
        trained = pretrain(
            _corpus(mixture, parameters),
            parameters.architecture,
            parameters.finishing.training,
            start=trained,
        )
        history = pd.concat([history, trained.history.assign(stage="finishing")], ignore_index=True)
    return HelixModel(trained.network, fingerprint="unsaved", heads=trained.heads), history


def evaluate_mini(
    model: HelixModel, table: pd.DataFrame, heldout: pd.DataFrame, parameters: PretrainingParameters
) -> pd.DataFrame:
    """Score the network on simulated families that it has not seen.

    Returns
    -------
    DataFrame
        ``measure``, ``records`` (which kind), ``value``, ``reference`` (the Markov model's, or NaN), ``n``.
    """
    from helix_sae.models.helix.evaluation import language_score, linear_r2
    from helix_sae.models.helix.markov import fit_markov
    from helix_sae.mrna.tokens import tokenize_table

    whole = table[table["source"] == "transcripts"]
    markov = fit_markov(
        [t.ids for t in tokenize_table(whole, parameters.codon_markers)], parameters.markov_order
    )
    unseen = heldout[heldout["source"] == "transcripts"]
    score = language_score(model, tokenize_table(unseen, parameters.codon_markers), markov)
    rows: list[dict[str, object]] = [
        {
            "measure": "bits_per_nucleotide",
            "records": "transcripts",
            "value": score.model,
            "reference": score.markov,
            "n": score.n_nucleotides,
        }
    ]
    for kind, group in heldout.groupby("source"):
        embedding = model.embed(tokenize_table(group, parameters.codon_markers))
        train = _first_half_of_clusters(group)
        for name in parameters.phenotypes:
            known = group[name].notna().to_numpy()
            if known.sum() < parameters.min_evaluated:
                continue
            y = group[name].to_numpy(dtype=float)
            fit, test = train & known, ~train & known
            r2 = linear_r2(embedding[fit], y[fit], embedding[test], y[test])
            rows.append({"measure": f"probe_r2 {name}", "records": kind, "value": r2, "reference": np.nan,
                         "n": int(test.sum())})  # fmt: skip
    scores = pd.DataFrame(rows)
    LOGGER.info("helix_mini on unseen families:\n%s", scores.to_string(index=False))
    return scores


def _corpus(table: pd.DataFrame, parameters: PretrainingParameters) -> Corpus:
    from helix_sae.models.helix.pretraining import Corpus
    from helix_sae.mrna.occupancy import upstream_occupancy
    from helix_sae.mrna.tokens import tokenize_table

    names = tuple(parameters.phenotypes)
    tokens = tokenize_table(table, parameters.codon_markers)
    occupancy = upstream_occupancy(table["sequence"].tolist(), table["cds_start"].tolist())
    return Corpus(
        tokens=tokens,
        phenotypes=table[list(names)].to_numpy(dtype=float),
        names=names,
        predicts_next=(table["source"] == "transcripts").to_numpy(),
        tracks=[
            np.where(t.is_nucleotide[:, None], track[t.nucleotide], np.nan).astype(np.float32)
            for t, track in zip(tokens, occupancy, strict=True)
        ],
    )


def _mixture(table: pd.DataFrame, shares: dict[str, float]) -> pd.DataFrame:
    """The first records of each source, as many as its share says; sources without a share are left out."""
    known = [str(source) for source in table["source"].unique()]
    if unknown := sorted(set(shares) - set(known)):
        raise ConfigurationError(
            f"pretraining.finishing.shares names {', '.join(unknown)}; the table's sources are"
            f" {', '.join(known)}."
        )
    parts = [
        group.iloc[: round(shares[str(source)] * len(group))]
        for source, group in table.groupby("source", sort=False)
        if str(source) in shares
    ]
    mixture = pd.concat(parts).sort_index().reset_index(drop=True)
    if mixture.empty:
        raise ConfigurationError(
            f"pretraining.finishing.shares leaves no record of the table's sources ({', '.join(known)});"
            " raise a share."
        )
    return mixture


def _first_half_of_clusters(group: pd.DataFrame) -> np.ndarray:
    """Rows of every other cluster, in the order of appearance."""
    codes, _ = pd.factorize(group["cluster"])
    return np.asarray(codes % 2 == 0)
