"""The feature atlas: one page a feature, everything a biologist needs to say what it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from markupsafe import Markup

from helix_sae.errors import ConfigurationError
from helix_sae.names import feature_name
from helix_sae.reporting import drawings, pages, windows, wording
from helix_sae.reporting.document import Statement, truth
from helix_sae.reporting.standing import standing
from helix_sae.reporting.windows import CodedCorpus, Firings, Window

N_HEAT = 9
"""Shades of the activation behind a nucleotide."""

_LOGO_FLANK = 12
_LOGO_FIRINGS = 500
_N_ASSOCIATIONS = 6
_N_CONCEPTS = 5
_N_NEAREST = 6


@dataclass(frozen=True)
class AtlasTables:
    """What is known of the features besides their codes; None or empty where a part was not run.

    Attributes
    ----------
    chosen : DataFrame
        The features in the order of their pages (:func:`helix_sae.reporting.selection.choose_features`).
    decoders : mapping of site to float (n_features, width)
        Decoder directions.
    significant : DataFrame or None
        Significant associations with their validation.
    concepts : DataFrame or None
        Concept matches (:func:`helix_sae.statistics.concept_matching.match_concepts`).
    baselines : DataFrame or None
        ``concept, kind, f1``: the best detector of each kind.
    effects : DataFrame or None
        Effects on discovery and held-out pairs.
    circuit : DataFrame or None
        ``site, feature`` of the circuit's members.
    stability : mapping of site to DataFrame, or None
        A row a feature in order: ``n_others, stability, stability_low, stability_high, certified, ...``
        (:func:`helix_sae.sae.stability.feature_stability`); unknown where there is none.
    causes : DataFrame or None
        Which feature carries which cause (:func:`helix_sae.causal.causes.cause_matrix`).
    rivals : DataFrame or None
        How far the features lead other dictionaries
        (:func:`helix_sae.causal.comparison.compare_dictionaries`).
    """

    chosen: pd.DataFrame
    decoders: Mapping[str, Float[np.ndarray, "n_features width"]]
    significant: pd.DataFrame | None = None
    concepts: pd.DataFrame | None = None
    baselines: pd.DataFrame | None = None
    effects: pd.DataFrame | None = None
    circuit: pd.DataFrame | None = None
    stability: Mapping[str, pd.DataFrame] | None = None
    causes: pd.DataFrame | None = None
    rivals: pd.DataFrame | None = None

    def standing(self) -> list[Statement]:
        """What is certified, what carries a cause and what is beaten, in words."""
        return standing(self.stability, self.causes, self.rivals)


class ShownWindow(NamedTuple):
    """A window ready for the template."""

    label: str
    sequence_id: str
    place: str
    peak: float
    value: str
    markup: Markup


class FeaturePage(NamedTuple):
    """Everything on one page; see the template."""

    site: str
    feature: int
    anchor: str
    chosen_for: str
    reason: str
    density: float
    n_active: int
    n_sequences: int
    maximum: float
    median: float
    marker_share: float
    bars: list[drawings.Bar]
    logo: str | None
    n_logo: int
    top: list[ShownWindow]
    sampled: list[ShownWindow]
    effect: dict[str, Any] | None
    associations: list[dict[str, Any]]
    concepts: list[dict[str, Any]]
    nearest: list[dict[str, Any]]
    stability: dict[str, Any]
    causes: list[dict[str, Any]]


def feature_pages(
    corpora: Mapping[str, CodedCorpus],
    tables: AtlasTables,
    *,
    target: str | None = None,
    n_windows: int = 8,
    flank: int = 25,
    seed: int = 0,
) -> list[FeaturePage]:
    """Collect the pages of the chosen features.

    Parameters
    ----------
    corpora : mapping of site to CodedCorpus
        Codes of every site that a chosen feature belongs to; the tables need ``cluster``.
    tables : AtlasTables
    target : str, optional
        Column of the mRNA table whose value is shown beside each window.
    n_windows : int
        Strongest windows shown, each from another family.
    flank : int
        Nucleotides shown on either side of an activation.
    seed : int
        Of the windows drawn from the quantiles.

    Raises
    ------
    ConfigurationError
        If a chosen feature's site has no codes, or the codes have no such feature.
    """
    order = [(str(s), int(f)) for s, f in zip(tables.chosen["site"], tables.chosen["feature"], strict=True)]
    found = _firings(corpora, order)
    pages_of = {key: pages.anchor(*key) for key in order}
    made: list[FeaturePage] = []
    base = {site: windows.background(corpus.table) for site, corpus in corpora.items()}
    for (site, feature), row in zip(order, tables.chosen.itertuples(), strict=True):
        corpus, fired = corpora[site], found[site, feature]
        rng = np.random.default_rng([seed, feature])
        top, sampled, strong = _windows(corpus, fired, n_windows, flank, target, rng)
        heights = windows.information(windows.letter_counts(corpus, fired, strong, _LOGO_FLANK), base[site])
        made.append(
            FeaturePage(
                site=site,
                feature=feature,
                anchor=pages_of[site, feature],
                chosen_for=str(row.chosen_for),
                reason=str(row.reason),
                density=fired.density,
                n_active=len(fired.activation),
                n_sequences=len(np.unique(fired.sequence)),
                maximum=float(fired.activation.max(initial=0.0)),
                median=float(np.median(fired.activation)) if len(fired.activation) else float("nan"),
                marker_share=fired.marker_share,
                bars=drawings.histogram_bars(fired.activation),
                logo=drawings.png_uri(drawings.logo(heights), dpi=140) if heights.any() else None,
                n_logo=len(strong),
                top=top,
                sampled=sampled,
                effect=_effect(tables.effects, tables.circuit, site, feature),
                associations=_associations(tables.significant, site, feature),
                concepts=_concepts(tables.concepts, tables.baselines, site, feature),
                nearest=_nearest(tables.decoders[site], site, feature, pages_of),
                stability=_stability((tables.stability or {}).get(site), feature),
                causes=_causes(tables.causes, site, feature),
            )
        )
    return made


def render_atlas(
    made: list[FeaturePage],
    *,
    title: str,
    subtitle: str,
    target: str | None = None,
    flank: int = 25,
    words: Sequence[Statement] = (),
) -> str:
    """The pages as one self-contained HTML document, ``words`` before them (:meth:`AtlasTables.standing`)."""
    lines = [page.effect or {} for page in made]
    drawn = drawings.whiskers(
        [line.get("estimate", np.nan) for line in lines],
        [line.get("low", np.nan) for line in lines],
        [line.get("high", np.nan) for line in lines],
    )
    return pages.render(
        "feature_atlas.html.j2",
        pages=list(zip(made, drawn, strict=True)),
        title=title,
        subtitle=subtitle,
        target=target,
        flank=flank,
        logo_flank=_LOGO_FLANK,
        words=list(words),
        cards={feature_name(page.site, page.feature): f"#{page.anchor}" for page in made},
    )


def _firings(
    corpora: Mapping[str, CodedCorpus], order: list[tuple[str, int]]
) -> dict[tuple[str, int], Firings]:
    """Activations of all chosen features, a pass a site."""
    found: dict[tuple[str, int], Firings] = {}
    for site in dict.fromkeys(site for site, _ in order):
        if site not in corpora:
            raise ConfigurationError(
                f"The atlas asks for features of {site!r}, whose codes are not there"
                f" ({', '.join(corpora) or 'none'}). Effects or associations and codes are of different runs;"
                " run the pipelines again from `sae_training` on."
            )
        features = [feature for s, feature in order if s == site]
        width = corpora[site].codes.shape[1]
        if max(features) >= width:
            raise ConfigurationError(
                f"The atlas asks for feature {max(features)} of {site!r}, which has {width}: the tables are"
                " of another autoencoder than the codes. Run the pipelines again from `sae_training` on."
            )
        for feature, fired in zip(features, windows.firings(corpora[site], features), strict=True):
            found[site, feature] = fired
    return found


def _windows(
    corpus: CodedCorpus,
    fired: Firings,
    n_windows: int,
    flank: int,
    target: str | None,
    rng: np.random.Generator,
) -> tuple[list[ShownWindow], list[ShownWindow], np.ndarray]:
    """Strongest and sampled windows, and the activations that the logo is made of."""
    clusters = corpus.table["cluster"].to_numpy()
    strong = windows.top_firings(fired, clusters, _LOGO_FIRINGS)
    at_least = fired.activation[strong] >= 0.5 * fired.activation.max(initial=0.0)
    best = strong[:n_windows]
    sampled = windows.sampled_firings(fired, clusters, rng, used=best)
    bands = dict(zip(windows.BANDS, [*windows.BANDS[1:], 1.0], strict=True))
    most = float(fired.activation.max(initial=0.0))

    def shown(index: int, label: str) -> ShownWindow:
        return _shown(windows.window(corpus, fired, index, flank), corpus.table, label, target, flank, most)

    top = [shown(int(i), str(rank)) for rank, i in enumerate(best, start=1)]
    drawn = [shown(i, f"{100 * low:g}–{100 * bands[low]:g} %") for low, i in sampled]
    return top, drawn, strong[at_least]


def _shown(
    window: Window, table: pd.DataFrame, label: str, target: str | None, flank: int, most: float
) -> ShownWindow:
    place = f"nt {window.position + 1} of {window.length}"
    if window.offset_from_start is not None:
        relative = window.offset_from_start
        # Biologists count without a zero: the A of the start codon is +1, the base before it −1.
        place = f"{wording.signed(relative + 1 if relative >= 0 else relative, 0)} from start"
    value = ""
    if target is not None and target in table.columns:
        known = pd.to_numeric(table[target], errors="coerce").iloc[window.sequence]
        value = wording.number(float(known)) if pd.notna(known) else wording.MISSING
    return ShownWindow(
        label=label,
        sequence_id=window.sequence_id,
        place=place,
        peak=window.peak,
        value=value,
        markup=window_markup(window, flank, most),
    )


def window_markup(window: Window, flank: int, most: float) -> Markup:
    """A window as spans, one a nucleotide: letter, shade of the activation, track.

    Parameters
    ----------
    window : Window
    flank : int
        Windows cut short by the sequence's start are padded to line up.
    most : float
        The feature's largest activation, which has the deepest shade.
    """
    missing = flank - (window.position - window.start)
    parts = [f'<i style="width: {0.62 * missing:.2f}em"></i>'] if missing else []
    heat = (
        np.ceil(N_HEAT * window.activation / most).astype(int)
        if most > 0
        else np.zeros(len(window.letters), int)
    )
    for i, letter in enumerate(window.letters):
        name = letter if letter in windows.LETTERS else "N"
        classes = f"{name} t{int(window.track[i])}"
        if heat[i]:
            classes += f" h{min(N_HEAT, int(heat[i]))}"
        if window.start + i == window.position:
            classes += " at"
        parts.append(f'<i class="{classes}">{pages.escaped(letter)}</i>')
    return Markup("".join(parts))


def _rows_of(table: pd.DataFrame | None, site: str, feature: int) -> pd.DataFrame:
    """Rows about one feature; empty when there is no table."""
    if table is None or table.empty:
        return pd.DataFrame()
    return table[(table["site"] == site) & (table["feature"].astype(str) == str(feature))]


def _effect(
    effects: pd.DataFrame | None, circuit: pd.DataFrame | None, site: str, feature: int
) -> dict[str, Any] | None:
    """The effect on the held-out pairs where the feature was tested there, else on the discovery pairs."""
    rows = _rows_of(effects, site, feature)
    if rows.empty:
        return None
    row = rows.iloc[0]
    selected, confirmed = (bool(truth(rows[name])[0]) for name in ("selected", "confirmed"))
    tested = selected and pd.notna(row["validation_oriented"])
    side = "validation" if tested else "discovery"
    return {
        "estimate": float(row[f"{side}_oriented"]),
        "low": float(row[f"{side}_low"]),
        "high": float(row[f"{side}_high"]),
        "side": "held-out" if tested else "discovery",
        "n_pairs": int(row[f"{side}_n_pairs"]),
        "n_clusters": int(row[f"{side}_n_clusters"]),
        "q_value": float(row["q_value"]) if tested else float("nan"),
        "confirmed": confirmed,
        "tested": tested,
        "estimator": str(row["estimator"]),
        "in_circuit": None
        if circuit is None or circuit.empty
        else not _rows_of(circuit, site, feature).empty,
    }


def _causes(causes: pd.DataFrame | None, site: str, feature: int) -> list[dict[str, Any]]:
    """The kinds of edit for which the feature is confirmed, strongest first."""
    rows = _rows_of(causes, site, feature)
    if rows.empty:
        return []
    own = rows[truth(rows["confirmed"])].sort_values("effect", key=np.abs, ascending=False)
    names = ("kind", "role", "effect", "low", "high", "q_value")
    return [{name: row[name] for name in names} for row in own.to_dict("records")]


def _associations(significant: pd.DataFrame | None, site: str, feature: int) -> list[dict[str, Any]]:
    rows = _rows_of(significant, site, feature)
    if rows.empty:
        return []
    best = rows.sort_values("validation_effect", key=np.abs, ascending=False, kind="stable")
    drawn = drawings.whiskers(
        best["validation_effect"].tolist(), best["validation_low"].tolist(), best["validation_high"].tolist()
    )
    shown = best.head(_N_ASSOCIATIONS).to_dict("records")
    return [{**row, "whisker": whisker} for row, whisker in zip(shown, drawn, strict=False)]


def _concepts(
    matches: pd.DataFrame | None, baselines: pd.DataFrame | None, site: str, feature: int
) -> list[dict[str, Any]]:
    """Best concepts with, beside each, the best detector that is no autoencoder's feature."""
    rows = _rows_of(matches, site, feature)
    if rows.empty:
        return []
    gain = (rows["f1"] - rows["f1_always"]) / (1 - rows["f1_always"] + 1e-12)
    order = gain.sort_values(ascending=False, kind="stable").index[:_N_CONCEPTS]
    rival: dict[str, tuple[str, float]] = {}
    if baselines is not None and not baselines.empty:
        others = baselines[baselines["kind"] != "sae"].sort_values("f1", ascending=False, kind="stable")
        for row in others.drop_duplicates("concept").itertuples():
            rival[str(row.concept)] = (str(row.kind), float(row.f1))  # type: ignore[arg-type]
    return [
        {**row, "rival": rival.get(str(row["concept"]), (None, float("nan")))}
        for row in rows.loc[order].to_dict("records")
    ]


def _stability(table: pd.DataFrame | None, feature: int) -> dict[str, Any]:
    """What other seeds say of a feature; never blank."""
    if table is None or "certified" not in table:
        return {"certified": "unknown", "n_others": 0}
    row = table.iloc[feature]
    n_others = int(row["n_others"])
    known = {
        name: float(row[name]) for name in ("stability_low", "stability_high", "best_cosine", "correlation")
    }
    back = round(n_others * float(row["stability"])) if n_others else 0
    return {"certified": str(row["certified"]), "n_others": n_others, "n_back": back, **known}


def _nearest(
    decoder: Float[np.ndarray, "n_features width"],
    site: str,
    feature: int,
    pages_of: Mapping[tuple[str, int], str],
) -> list[dict[str, Any]]:
    """Features of the same site whose decoder directions are most alike."""
    norm = np.linalg.norm(decoder, axis=1)
    unit = decoder / np.where(norm > 0, norm, 1.0)[:, None]
    cosine = unit @ unit[feature]
    cosine[feature] = -np.inf
    best = np.argsort(-cosine, kind="stable")[: min(_N_NEAREST, len(cosine) - 1)]
    return [
        {"feature": int(j), "cosine": float(cosine[j]), "anchor": pages_of.get((site, int(j)))} for j in best
    ]
