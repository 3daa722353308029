"""The feature atlas: everything a biologist needs to say what a feature stands for, feature by feature."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from markupsafe import Markup

from helix_sae.errors import ConfigurationError
from helix_sae.names import ERROR, feature_name
from helix_sae.reporting import drawings, pages, windows, wording
from helix_sae.reporting.document import Statement, is_empty
from helix_sae.reporting.features import best_rivals
from helix_sae.reporting.gathering import LaidOut
from helix_sae.reporting.standing import standing
from helix_sae.reporting.windows import CodedCorpus, Firings, Window

N_HEAT = 9
"""Shades of the activation behind a nucleotide."""

LOGO_FLANK = 12
"""Places of a logo on either side of the activation."""

_LOGO_FIRINGS = 500
_BLOCK = 512
"""Features whose activations are in memory at once."""

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
    """A window ready to be drawn: a character a nucleotide in ``letters``, ``shades`` and ``tracks``.

    Attributes
    ----------
    label : str
        Rank or band of quantiles.
    sequence_id : str
    place : str
        Where the activation lies, counted from the start codon where that is known.
    peak : float
        The activation.
    value : str
        The target of the sequence, in words.
    missing : int
        Places before the start of the sequence.
    letters, shades, tracks : str
        Nucleotides; activation from ``0`` to ``9`` (the feature's largest); indices into
        :data:`helix_sae.reporting.windows.TRACKS`.
    """

    label: str
    sequence_id: str
    place: str
    peak: float
    value: str
    missing: int
    letters: str
    shades: str
    tracks: str


class FeaturePage(NamedTuple):
    """Everything on the card of one feature (:func:`helix_sae.reporting.cards.card`)."""

    site: str
    feature: int
    name: str
    anchor: str
    chosen_for: str
    reason: str
    density: float
    n_active: int
    n_sequences: int
    maximum: float
    median: float
    marker_share: float
    bars: list[float]
    logo: Float[np.ndarray, "positions 4"] | None
    n_logo: int
    top: list[ShownWindow]
    sampled: list[ShownWindow]
    effect: dict[str, Any] | None
    associations: list[dict[str, Any]]
    concepts: list[dict[str, Any]]
    nearest: list[dict[str, Any]]
    stability: dict[str, Any]
    causes: list[dict[str, Any]]

    @property
    def consensus(self) -> str:
        """The letter of each place of the logo that tells something, ``·`` where it does not."""
        return windows.consensus(self.logo) if self.logo is not None else ""


def feature_pages(
    corpora: Mapping[str, CodedCorpus],
    tables: AtlasTables,
    order: Sequence[tuple[str, int]],
    *,
    target: str | None = None,
    n_windows: int = 8,
    flank: int = 25,
    seed: int = 0,
) -> Iterator[FeaturePage]:
    """Collect the cards of some features, one after the other, so that those of all are never in memory at once.

    Parameters
    ----------
    corpora : mapping of site to CodedCorpus
        Codes of every site that a feature belongs to; the tables need ``cluster``.
    tables : AtlasTables
    order : sequence of (site, feature)
        Features of a site stand together.
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
        If a feature's site has no codes, or the codes have no such feature; before the first card.
    """
    _check(corpora, order)
    anchors = {key: pages.anchor(*key) for key in order}
    reasons = {
        (str(row.site), int(row.feature)): (str(row.chosen_for), str(row.reason))  # type: ignore[arg-type]
        for row in tables.chosen.itertuples()
    }
    evidence = _Evidence(tables)
    laid_out: dict[int, LaidOut] = {}
    for site in dict.fromkeys(site for site, _ in order):
        corpus = corpora[site]
        sequences = laid_out.get(id(corpus.table)) or LaidOut(corpus.table, max(flank, LOGO_FLANK))
        laid_out[id(corpus.table)] = sequences
        cutter = _Cutter(corpus, sequences, target, n_windows, flank)
        features = [feature for s, feature in order if s == site]
        nearest = _nearest(tables.decoders[site], features)
        for feature, fired, alike in zip(features, _in_blocks(corpus, features), nearest, strict=True):
            top, sampled, strong = cutter.shown(fired, np.random.default_rng([seed, feature]))
            heights = cutter.heights(fired, strong)
            chosen_for, reason = reasons.get((site, feature), ("", ""))
            yield FeaturePage(
                site=site,
                feature=feature,
                name=feature_name(site, feature),
                anchor=anchors[site, feature],
                chosen_for=chosen_for,
                reason=reason,
                density=fired.density,
                n_active=len(fired.activation),
                n_sequences=int(np.count_nonzero(np.diff(fired.sequence, prepend=-1))),
                maximum=float(fired.activation.max(initial=0.0)),
                median=float(np.median(fired.activation)) if len(fired.activation) else float("nan"),
                marker_share=fired.marker_share,
                bars=drawings.histogram_bars(fired.activation),
                logo=heights if heights.any() else None,
                n_logo=len(strong),
                top=top,
                sampled=sampled,
                effect=_effect(evidence.effects[site, feature], evidence.circuit, site, feature),
                associations=_associations(evidence.significant[site, feature]),
                concepts=_concepts(evidence.concepts[site, feature], evidence.rivals),
                nearest=[
                    {"name": feature_name(site, j), "cosine": cosine, "anchor": anchors.get((site, j))}
                    for j, cosine in alike
                ],
                stability=_stability((tables.stability or {}).get(site), feature),
                causes=_causes(evidence.causes[site, feature]),
            )


def _check(corpora: Mapping[str, CodedCorpus], order: Sequence[tuple[str, int]]) -> None:
    """Refuse features that the codes do not have."""
    largest: dict[str, int] = {}
    for site, feature in order:
        largest[site] = max(feature, largest.get(site, 0))
    for site, feature in largest.items():
        if site not in corpora:
            raise ConfigurationError(
                f"The atlas asks for features of {site!r}, whose codes are not there"
                f" ({', '.join(corpora) or 'none'}). Effects or associations and codes are of different runs;"
                " run the pipelines again from `sae_training` on."
            )
        width = corpora[site].codes.shape[1]
        if feature >= width:
            raise ConfigurationError(
                f"The atlas asks for feature {feature} of {site!r}, which has {width}: the tables are"
                " of another autoencoder than the codes. Run the pipelines again from `sae_training` on."
            )


def _in_blocks(corpus: CodedCorpus, features: list[int]) -> Iterator[Firings]:
    """Activations of the features, a block of them at a time."""
    for start in range(0, len(features), _BLOCK):
        yield from windows.firings(corpus, features[start : start + _BLOCK])


class _Cutter:
    """Cuts the windows of one site's features."""

    def __init__(
        self, corpus: CodedCorpus, sequences: LaidOut, target: str | None, n_windows: int, flank: int
    ) -> None:
        self.sequences, self.n_windows, self.flank = sequences, n_windows, flank
        self.names = corpus.table["sequence_id"].astype(str).tolist()
        self.base = windows.background(corpus.table)
        self.values: list[str] | None = None
        if target is not None and target in corpus.table.columns:
            numbers = pd.to_numeric(corpus.table[target], errors="coerce").to_numpy(float, na_value=np.nan)
            self.values = [wording.number(value) for value in numbers.tolist()]

    def shown(
        self, fired: Firings, rng: np.random.Generator
    ) -> tuple[list[ShownWindow], list[ShownWindow], np.ndarray]:
        """Strongest and sampled windows, and the activations that the logo is made of."""
        families = self.sequences.families
        strong = windows.top_firings(fired, families, _LOGO_FIRINGS)
        best = strong[: self.n_windows]
        sampled = windows.sampled_firings(fired, families, rng, used=best)
        bands = dict(zip(windows.BANDS, [*windows.BANDS[1:], 1.0], strict=True))
        labels = [
            *(str(rank) for rank in range(1, len(best) + 1)),
            *(f"{100 * low:g}–{100 * bands[low]:g} %" for low, _ in sampled),
        ]
        made = self._cut(fired, np.array([*best, *(index for _, index in sampled)], dtype=np.int64), labels)
        is_strong = fired.activation[strong] >= 0.5 * fired.activation.max(initial=0.0)
        return made[: len(best)], made[len(best) :], strong[is_strong]

    def heights(self, fired: Firings, strong: np.ndarray) -> Float[np.ndarray, "positions 4"]:
        """Of the letters of the logo, in bits."""
        return windows.information(self.sequences.letter_counts(fired, strong, LOGO_FLANK), self.base)

    def _cut(self, fired: Firings, chosen: np.ndarray, labels: list[str]) -> list[ShownWindow]:
        cut = self.sequences.cut(fired, chosen, self.flank)
        most = float(fired.activation.max(initial=0.0)) or 1.0
        shades = np.minimum(N_HEAT, np.ceil(N_HEAT * cut.activation / most)).astype(np.uint8)
        inside = cut.letters > 0
        made: list[ShownWindow] = []
        for i, (index, label) in enumerate(zip(chosen.tolist(), labels, strict=True)):
            row, here = int(fired.sequence[index]), inside[i]
            made.append(
                ShownWindow(
                    label=label,
                    sequence_id=self.names[row],
                    place=self._place(row, int(fired.position[index])),
                    peak=float(fired.activation[index]),
                    value=self.values[row] if self.values is not None else "",
                    missing=int(here.argmax()),
                    letters=cut.letters[i, here].tobytes().decode("ascii"),
                    shades=(shades[i, here] + ord("0")).tobytes().decode("ascii"),
                    tracks=(cut.track[i, here].astype(np.uint8) + ord("0")).tobytes().decode("ascii"),
                )
            )
        return made

    def _place(self, row: int, position: int) -> str:
        start = self.sequences.cds_start[row]
        if np.isnan(start):
            return f"nt {position + 1} of {self.sequences.lengths[row]}"
        relative = position - int(start)
        # Biologists count without a zero: the A of the start codon is +1, the base before it −1.
        return f"{wording.signed(relative + 1 if relative >= 0 else relative, 0)} from start"


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


class _Evidence:
    """The tables of the atlas, by feature."""

    def __init__(self, tables: AtlasTables) -> None:
        self.effects = _by_feature(tables.effects)
        self.causes = _by_feature(tables.causes)
        self.significant = _by_feature(tables.significant)
        self.concepts = _by_feature(tables.concepts)
        self.circuit = None if is_empty(tables.circuit) else set(_by_feature(tables.circuit))
        self.rivals = best_rivals(tables.baselines)


def _by_feature(table: pd.DataFrame | None) -> defaultdict[tuple[str, int], list[dict[str, Any]]]:
    """Rows of a table by the feature that they are about; nodes that are no feature are left out."""
    found: defaultdict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    if table is not None and not table.empty:
        for row in table[table["feature"].astype(str) != ERROR].to_dict("records"):
            found[str(row["site"]), int(row["feature"])].append({str(key): row[key] for key in row})
    return found


def _effect(
    rows: list[dict[str, Any]], circuit: set[tuple[str, int]] | None, site: str, feature: int
) -> dict[str, Any] | None:
    """The effect on the held-out pairs where the feature was tested there, else on the discovery pairs."""
    if not rows:
        return None
    row = rows[0]
    tested = _is_true(row["selected"]) and pd.notna(row["validation_oriented"])
    side = "validation" if tested else "discovery"
    return {
        "estimate": float(row[f"{side}_oriented"]),
        "low": float(row[f"{side}_low"]),
        "high": float(row[f"{side}_high"]),
        "side": "held-out" if tested else "discovery",
        "n_pairs": int(row[f"{side}_n_pairs"]),
        "n_clusters": int(row[f"{side}_n_clusters"]),
        "q_value": float(row["q_value"]) if tested else float("nan"),
        "confirmed": _is_true(row["confirmed"]),
        "tested": tested,
        "estimator": str(row["estimator"]),
        "in_circuit": None if circuit is None else (site, feature) in circuit,
    }


def _is_true(value: object) -> bool:
    """As :func:`helix_sae.reporting.document.truth` has it."""
    return str(value) == "True"


def _causes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The kinds of edit for which the feature is confirmed, strongest first."""
    own = sorted((row for row in rows if _is_true(row["confirmed"])), key=lambda row: -abs(row["effect"]))
    names = ("kind", "role", "effect", "low", "high", "q_value")
    return [{name: row[name] for name in names} for row in own]


def _associations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The strongest on validation families, with their drawings on one axis; unknown ones last."""
    best = sorted(rows, key=lambda row: -abs(row["validation_effect"]) if _known(row) else np.inf)
    drawn = drawings.whiskers(
        *([float(row[f"validation_{name}"]) for row in best] for name in ("effect", "low", "high"))
    )
    shown = zip(best[:_N_ASSOCIATIONS], drawn[:_N_ASSOCIATIONS], strict=True)
    return [{**row, "whisker": whisker} for row, whisker in shown]


def _known(row: dict[str, Any]) -> bool:
    return bool(pd.notna(row["validation_effect"]))


def _concepts(rows: list[dict[str, Any]], rivals: Mapping[str, tuple[str, float]]) -> list[dict[str, Any]]:
    """Best concepts with, beside each, the best detector that is no autoencoder's feature."""

    def gain(row: dict[str, Any]) -> float:
        return (row["f1"] - row["f1_always"]) / (1 - row["f1_always"] + 1e-12)

    best = sorted(rows, key=gain, reverse=True)[:_N_CONCEPTS]
    return [{**row, "rival": rivals.get(str(row["concept"]), (None, float("nan")))} for row in best]


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
    decoder: Float[np.ndarray, "n_features width"], features: list[int]
) -> Iterator[list[tuple[int, float]]]:
    """Features of the same site whose decoder directions are most alike, with their cosines."""
    norm = np.linalg.norm(decoder, axis=1)
    unit = decoder / np.where(norm > 0, norm, 1.0)[:, None]
    n = min(_N_NEAREST, len(unit) - 1)
    for start in range(0, len(features), _BLOCK):
        block = np.array(features[start : start + _BLOCK])
        cosine = unit[block] @ unit.T
        cosine[np.arange(len(block)), block] = -np.inf
        best = np.argpartition(-cosine, n - 1, axis=1)[:, :n] if n else np.zeros((len(block), 0), int)
        for row, found in zip(cosine, best, strict=True):
            ranked = sorted(found.tolist(), key=lambda j: (-row[j], j))
            yield [(j, float(row[j])) for j in ranked]
