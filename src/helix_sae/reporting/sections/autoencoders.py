"""How well the sparse autoencoders describe the activations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from helix_sae.figures.style import site_label
from helix_sae.figures.training import feature_density, first_seed, training_history
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
) -> Section:
    """Quality on held-out tokens, site by site.

    Parameters
    ----------
    metrics : DataFrame or None
        ``site, config, n_tokens, l0, mse, explained_variance, cosine, dead_share, dense_share, ...`` on held-out tokens.
    history : DataFrame or None
        Of the training: ``site, config, step, tokens, ...``.
    densities : mapping of site to float (n_features,), optional
        Share of tokens at which each feature is active, of the chosen configuration.
    chosen : str, optional
        The configuration that the analyses use; when absent, all are spoken of.
    downstream : DataFrame, optional
        What the model computes from the reconstructions: ``site, embedding_cosine, ce_clean, ce_recovered, ...``.
    probing : DataFrame, optional
        Concepts told by few features: ``site, concept, probe, k, auc``.
    stability : DataFrame, optional
        Of configurations that differ in their seed only: ``site, matched_cosine, share_stable, random_cosine``.
    """
    if metrics is None or metrics.empty:
        return not_run(KEY, TITLE, "No autoencoder was trained.")
    first = first_seed(metrics)
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
            f"On held-out tokens the autoencoders explain {_span(worst, best)} of the variance of the activations, with "
            f"{number(float(used['l0'].median()), 2)} active features a token (median over {count(len(used), 'site')}).",
            "weak" if low else "finding",
            headline=True,
        ),
    )
    statements += _downstream_statements(downstream)
    warnings = [
        f"The autoencoder of {site_label(site)} does not explain {percent(LOW_VARIANCE)} of the variance: much of what the "
        "model computes there is in the reconstruction error, not in the features."
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
            *_stability_blocks(stability),
        ],
        {"sites": first, "chosen": chosen, **({} if downstream is None else {"downstream": downstream})},
        [Tile("Variance explained", _span(worst, best), "held-out tokens", weak=bool(low))],
        warnings,
    )


def _span(low: float, high: float) -> str:
    first, last = percent(float(low)), percent(float(high))
    return first if first == last else f"{first.removesuffix(' %')} to {last}"


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
        "Held-out quality of the autoencoders. L0: features active a token. Dense: share of features active at more than a "
        "tenth of the tokens. Nearest decoder: mean cosine of each feature's direction with the one most like it.",
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
                "A feature that fires nearly everywhere says little about any place, and one that never fires says nothing; "
                "what can be read lies in between."
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
        "Run on from the reconstruction of one site, the model gives embeddings whose cosine with the undisturbed ones, "
        f"counted from their mean, is at least {number(low, 2)} on average"
    )
    recovered = downstream["ce_recovered"].dropna()
    if len(recovered):
        text += (
            f"; {_span(float(recovered.min()), float(recovered.max()))} of the next-token cross-entropy that the site is "
            "worth comes back"
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
            "The model run on with one site replaced, on held-out sequences: by its reconstruction, by its mean, by zeros. "
            "Cross-entropy in nats a token; recovered is the share of the loss by the mean that the reconstruction undoes.",
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
            f"Telling {count(n, 'concept')} by the best few features: mean AUC of a logistic regression on held-out clusters. "
            "The raw activations are what a linear read-out of the site can tell at all.",
            wide.reset_index(),
            columns,
        )
    ]


def _stability_blocks(stability: pd.DataFrame | None) -> list[Block]:
    if stability is None or is_empty(stability):
        return []
    columns = {
        "matched_cosine": ("Matched cosine", 3),
        "share_stable": ("Found again", 3),
        "random_cosine": ("By chance", 3),
    }
    return [
        _table(
            "Two seeds of one configuration, living features matched one to one. Found again: cosine of at least 0.7.",
            stability,
            columns,
        )
    ]


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
