"""How well the sparse autoencoders describe the activations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from helix_sae.figures.stability import feature_stability
from helix_sae.figures.style import site_label
from helix_sae.figures.training import feature_density, first_seed, training_history
from helix_sae.names import POOLED
from helix_sae.reporting.document import (
    Block,
    Column,
    Prose,
    ReportTable,
    Section,
    Statement,
    Tile,
    is_empty,
    not_run,
    picture,
)
from helix_sae.reporting.wording import count, fixed, number, percent

KEY, TITLE = "autoencoders", "Sparse autoencoders"

FAR_OUTSIDE = 0.05
"""Share of tokens outside the range of training above which shipped autoencoders are said to fit badly."""

LOW_VARIANCE = 0.7
"""Held-out explained variance below which a site's features are called a poor description of it."""
MANY_DEAD = 0.5
"""Share of dead features above which it is remarked upon."""


def autoencoder_section(
    metrics: pd.DataFrame | None,
    history: pd.DataFrame | None,
    densities: Mapping[str, np.ndarray] | None = None,
    *,
    chosen: str | None = None,
    downstream: pd.DataFrame | None = None,
    probing: pd.DataFrame | None = None,
    stability: pd.DataFrame | None = None,
    features: pd.DataFrame | None = None,
    subspaces: pd.DataFrame | None = None,
) -> Section:
    """Quality on held-out tokens, site by site.

    Parameters
    ----------
    metrics : DataFrame or None
        ``site, config, n_tokens, l0, mse, explained_variance, cosine, dead_share, dense_share, ...`` on
        held-out tokens.
    history : DataFrame or None
        Of the training: ``site, config, step, tokens, ...``.
    densities : mapping of site to float (n_features,), optional
        Share of tokens at which each feature is active, of the chosen configuration.
    chosen : str, optional
        The configuration that the analyses use, itself or pooled from its seeds; when absent, all are spoken
        of.
    downstream : DataFrame, optional
        What the model computes from the reconstructions:
        ``site, embedding_cosine, ce_clean, ce_recovered, ...``.
    probing : DataFrame, optional
        Concepts told by few features: ``site, concept, probe, k, auc``.
    stability : DataFrame, optional
        A row a site: :func:`helix_sae.sae.stability.stability_summary`.
    features : DataFrame, optional
        A row a feature: :func:`helix_sae.sae.stability.feature_stability`.
    subspaces : DataFrame, optional
        A row a site: :func:`helix_sae.sae.subspaces.describe_unstable`.
    """
    if metrics is None or metrics.empty:
        return not_run(KEY, TITLE, "No autoencoder was trained.")
    first = first_seed(metrics)
    chosen = POOLED if (first["config"] == POOLED).any() else chosen
    used = first if chosen is None else first[first["config"] == chosen]
    used = first if used.empty else used
    widths = {site: len(d) for site, d in (densities or {}).items()}
    statements = [_site_statement(row, widths.get(str(row["site"]))) for row in used.to_dict("records")]
    # Not `<`: where the variance explained is not defined (constant activations), nothing was explained.
    low = [str(s) for s in used.loc[~(used["explained_variance"] >= LOW_VARIANCE), "site"]]
    dead = [str(s) for s in used.loc[used["dead_share"] > MANY_DEAD, "site"]]
    best, worst = used["explained_variance"].max(), used["explained_variance"].min()
    statements.insert(
        0,
        Statement(
            f"On held-out tokens the autoencoders explain {_span(worst, best)} of the variance of the"
            f" activations, with {number(float(used['l0'].median()), 2)} active features a token (median over"
            f" {count(len(used), 'site')}).",
            "weak" if low else "finding",
            headline=True,
        ),
    )
    statements[1:1] = [*_fit_statements(used), *_stability_statements(stability)]
    statements += [*_subspace_statements(subspaces), *_downstream_statements(downstream)]
    warnings = [
        f"The autoencoder of {site_label(site)} does not explain {percent(LOW_VARIANCE)} of the variance:"
        " much of what the model computes there is in the reconstruction error, not in the features."
        for site in low
    ]
    warnings += [f"More than half of the features of {site_label(site)} never fire." for site in dead]
    return Section(
        KEY,
        TITLE,
        statements,
        [
            *_blocks(first, history, densities, chosen),
            *_downstream_blocks(downstream),
            *_probing_blocks(probing),
            *_stability_blocks(stability, features, subspaces),
        ],
        {"sites": first, "chosen": chosen, **_given(downstream=downstream, stability=stability)},
        [
            Tile("Variance explained", _span(worst, best), "held-out tokens", weak=bool(low)),
            *_stability_tile(stability),
        ],
        warnings,
    )


def _span(low: float, high: float) -> str:
    first, last = percent(float(low)), percent(float(high))
    return first if first == last else f"{first.removesuffix(' %')} to {last}"


def _fit_statements(used: pd.DataFrame) -> list[Statement]:
    """How well autoencoders that were trained on other sequences fit these."""
    if "outside_range" not in used:
        return []
    low, high = used["outside_range"].min(), used["outside_range"].max()
    text = (
        "They come with the model and were trained on other sequences. "
        f"{_span(low, high)} of the tokens here are reconstructed worse than all but one in a thousand of "
        "those"
    )
    return [
        Statement(f"{text}.", "weak" if high > FAR_OUTSIDE else "finding", headline=True)
        if pd.notna(high)
        else Statement("They come with the model and were trained on other sequences.", headline=True)
    ]


def _site_statement(row: Mapping[str, object], width: int | None) -> Statement:
    value = {str(k): v for k, v in row.items()}
    variance, dead = float(value["explained_variance"]), float(value["dead_share"])  # type: ignore[arg-type]
    of = f" of {width:,}" if width else ""
    text = (
        f"{site_label(str(value['site'])).capitalize()}: {percent(variance, 1)} of the variance with "
        f"{number(float(value['l0']), 2)}{of} features active a token; {percent(dead, 1)} of the features are dead."  # type: ignore[arg-type]
    )
    good = variance >= LOW_VARIANCE and dead <= MANY_DEAD
    return Statement(text, "finding" if good else "weak")


def _blocks(
    metrics: pd.DataFrame,
    history: pd.DataFrame | None,
    densities: Mapping[str, np.ndarray] | None,
    chosen: str | None,
) -> list[Block]:
    columns = {
        "explained_variance": ("Variance explained", 3),
        "l0": ("L0", 1),
        "cosine": ("Cosine", 3),
        "dead_share": ("Dead", 3),
        "dense_share": ("Dense", 3),
        "decoder_similarity": ("Nearest decoder", 2),
        "n_directions": ("Directions", 0),
    }
    present = {name: shown for name, shown in columns.items() if name in metrics}
    several = metrics["config"].nunique() > 1
    rows = [
        [
            str(row["site"]),
            str(row["config"]) + (" (used)" if several and row["config"] == chosen else ""),
            *(fixed(float(row[name]), decimals) for name, (_, decimals) in present.items()),
        ]
        for row in metrics.to_dict("records")
    ]
    table = ReportTable(
        "Held-out quality of the autoencoders. L0: features active a token. Dense: share of features active"
        " at more than a tenth of the tokens. Nearest decoder: mean cosine of each feature's direction with"
        " the one most like it. Directions: principal components that hold 99 % of the site's variance.",
        [
            Column("Site", "code"),
            Column("Configuration"),
            *(Column(title, "number") for title, _ in present.values()),
        ],
        rows,
    )
    blocks: list[Block] = [table]
    if history is not None and not is_empty(history):
        blocks.append(
            picture(
                "figure-training",
                "Training",
                "What the autoencoders explain as they see more tokens; diamonds are held-out tokens.",
                training_history(history, metrics),
            )
        )
    if densities:
        blocks += [
            Prose(
                "A feature that fires nearly everywhere says little about any place, and one that never fires"
                " says nothing; what can be read lies in between."
            ),
            picture(
                "figure-density",
                "How often features fire",
                "Share of tokens at which each feature is active.",
                feature_density(densities),
            ),
        ]
    return blocks


LOW_RECOVERY = 0.9
"""Share of cross-entropy recovered below which the model is said to lose by the reconstruction."""


def _downstream_statements(downstream: pd.DataFrame | None) -> list[Statement]:
    if downstream is None or is_empty(downstream):
        return []
    low = float(downstream["embedding_cosine"].min())
    text = (
        "Run on from the reconstruction of one site, the model gives embeddings whose cosine with the"
        f" undisturbed ones, counted from their mean, is at least {number(low, 2)} on average"
    )
    recovered = downstream["ce_recovered"].dropna()
    if len(recovered):
        text += (
            f"; {_span(float(recovered.min()), float(recovered.max()))} of the next-token cross-entropy that"
            " the site is worth comes back"
        )
    weak = bool(len(recovered)) and float(recovered.min()) < LOW_RECOVERY
    return [Statement(f"{text}.", "weak" if weak else "finding")]


def _downstream_blocks(downstream: pd.DataFrame | None) -> list[Block]:
    if downstream is None or is_empty(downstream):
        return []
    columns = {
        "embedding_cosine": ("Embedding cosine", 3),
        "embedding_cosine_mean_ablated": ("of the mean", 3),
        "ce_clean": ("Cross-entropy", 4),
        "ce_reconstructed": ("reconstructed", 4),
        "ce_mean_ablated": ("mean", 4),
        "ce_zero_ablated": ("zero", 4),
        "ce_recovered": ("Recovered", 3),
    }
    return [
        _table(
            "The model run on with one site replaced, on held-out sequences: by its reconstruction, by its"
            " mean, by zeros. Cross-entropy in nats a token; recovered is the share of the loss by the mean"
            " that the reconstruction undoes.",
            downstream,
            columns,
        )
    ]


def _probing_blocks(probing: pd.DataFrame | None) -> list[Block]:
    if probing is None or is_empty(probing):
        return []
    wide = probing.pivot_table(index="site", columns="probe", values="auc", aggfunc="mean", sort=False)
    columns = {str(name): (str(name).capitalize(), 3) for name in wide.columns}
    n = probing["concept"].nunique()
    return [
        _table(
            f"Telling {count(n, 'concept')} by the best few features: mean AUC of a logistic regression on"
            " held-out clusters. The raw activations are what a linear read-out of the site can tell at"
            " all.",
            wide.reset_index(),
            columns,
        )
    ]


def _given(**tables: pd.DataFrame | None) -> dict[str, pd.DataFrame]:
    return {name: table for name, table in tables.items() if table is not None}


FEW_BACK = 0.5
"""Share of certified features below which the dictionary is said to be mostly one seed's own."""


def _judged(stability: pd.DataFrame | None) -> pd.DataFrame | None:
    """The sites whose features were held against other seeds; None where none was."""
    if stability is None or is_empty(stability):
        return None
    judged = stability[stability["n_seeds"] > 1]
    return None if judged.empty else judged


def _stability_statements(stability: pd.DataFrame | None) -> list[Statement]:
    """What is certified, and what chance would give."""
    if stability is None or is_empty(stability):
        return []
    judged = _judged(stability)
    if judged is None:
        return [
            Statement(
                "Whether these features come back in other seeds is unknown: one seed was trained. None is"
                " certified; train five (sae_training.n_seeds) before a feature is named in earnest.",
                "absent",
                headline=True,
            )
        ]
    n_seeds, total = int(judged["n_seeds"].min()), int(judged["n_features"].sum())
    back = float(np.average(judged["share_back"], weights=judged["n_features"]))
    chance = float(judged["chance_back"].max())
    if judged["share_certified"].isna().any():
        return [
            Statement(
                f"With {count(n_seeds, 'seed')} no feature can be certified (five are needed);"
                f" {percent(back)} of the {count(total, 'living feature')} come back in another one,"
                f" {percent(chance)} in untrained ones.",
                "weak",
                headline=True,
            )
        ]
    certain = int(judged["n_certified"].sum())
    text = (
        f"{certain:,} of {count(total, 'living feature')} ({percent(certain / total)}) are certified: they"
        f" come back in at least three quarters of {n_seeds - 1} seeds, with the same direction and on"
        f" the same held-out tokens. Of untrained dictionaries {percent(chance)} have a feature like one of"
        f" them; the seeds' dictionaries match with a cosine of {number(float(judged['pw_mcc'].mean()), 2)}"
        f" on average, random ones with {number(float(judged['chance_cosine'].mean()), 2)}."
    )
    return [Statement(text, "finding" if certain >= FEW_BACK * total else "weak", headline=True)]


def _stability_tile(stability: pd.DataFrame | None) -> list[Tile]:
    judged = _judged(stability)
    if judged is None or judged["share_certified"].isna().any():
        return []
    share = float(judged["n_certified"].sum() / judged["n_features"].sum())
    return [Tile("Features certified", percent(share), "come back in other seeds", weak=share < FEW_BACK)]


def _subspace_statements(subspaces: pd.DataFrame | None) -> list[Statement]:
    """What does not come back, as far as the seeds agree on where it lies."""
    if subspaces is None or is_empty(subspaces):
        return []
    there = subspaces[subspaces["n_unstable"] > 0]
    if there.empty:
        return []
    shared = there[there["overlap"] > there["overlap_by_chance"]]
    low, high = there["share_variance"].min(), there["share_variance"].max()
    text = (
        f"What does not come back accounts for {_span(low, high)} of the variance. It lies in"
        f" {number(float(there['dimensions'].median()), 2)} dimensions (median over"
        f" {count(len(there), 'site')}), on which the seeds agree better than on those of random activations"
        f" at {len(shared)} of {len(there)}."
    )
    return [Statement(text, "finding" if len(shared) == len(there) else "weak")]


def _stability_blocks(
    stability: pd.DataFrame | None, features: pd.DataFrame | None, subspaces: pd.DataFrame | None
) -> list[Block]:
    judged = _judged(stability)
    if judged is None:
        return []
    blocks: list[Block] = [
        _table(
            "Features that come back in other seeds, which differ in initialisation and order of the data."
            " Comes back: mean share of the other seeds in which a living feature has one like it (cosine of"
            " the decoder rows and correlation of held-out codes at least 0.7); certified: in three quarters"
            " of at least four. Matched cosine: decoder rows of two seeds matched one to one.",
            judged,
            {
                "n_features": ("Living", 0),
                "n_certified": ("Certified", 0),
                "share_back": ("Comes back", 3),
                "chance_back": ("in untrained", 3),
                "share_cosine": ("by cosine alone", 3),
                "pw_mcc": ("Matched cosine", 3),
                "pw_mcc_lowest": ("lowest pair", 3),
                "chance_cosine": ("by chance", 3),
            },
        )
    ]
    if features is not None and not is_empty(features):
        blocks.append(
            picture(
                "figure-stability",
                "What comes back",
                "Left: living features of each site. Right: how alike each feature is to its partner in the"
                " other seeds.",
                feature_stability(features),
            )
        )
    if subspaces is not None and not is_empty(subspaces):
        blocks.append(
            _table(
                "What does not come back, as a subspace: features below three quarters of the seeds, the"
                " dimensions that hold 90 % of what they reconstruct, their share of the variance, and the"
                " overlap of the seeds' subspaces (mean squared cosine of the principal angles; 1 is the"
                " same) beside that of as many random activations.",
                subspaces,
                {
                    "n_unstable": ("Features", 1),
                    "dimensions": ("Dimensions", 1),
                    "share_variance": ("Variance", 3),
                    "overlap": ("Overlap", 3),
                    "overlap_by_chance": ("of random activations", 3),
                },
            )
        )
    return blocks


def _table(caption: str, data: pd.DataFrame, columns: Mapping[str, tuple[str, int]]) -> ReportTable:
    """A row a site, numbers in the columns that are there."""
    present = {name: shown for name, shown in columns.items() if name in data}
    rows = [
        [str(row["site"]), *(fixed(float(row[name]), decimals) for name, (_, decimals) in present.items())]
        for row in data.to_dict("records")
    ]
    return ReportTable(
        caption, [Column("Site", "code"), *(Column(t, "number") for t, _ in present.values())], rows
    )
