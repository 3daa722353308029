"""Every causal figure is drawn, says what it must, and survives tables without rows."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from legibility import legible
from matplotlib.figure import Figure

from helix_sae.figures.causal_curves import (
    acdc_curves,
    baseline_curves,
    circuit_quality,
    intervention_curves,
)
from helix_sae.figures.causal_effects import (
    block_comparison,
    designed_effects,
    feature_effects,
    position_effects,
    predicted_difference,
)
from helix_sae.figures.causal_graph import circuit_graph

RNG = np.random.default_rng(0)


DICTIONARIES = (
    ("sae", "exact"),
    ("sae", "atp"),
    ("sae", "difference"),
    ("sae", "masks"),
    ("sae", "random"),
    ("neurons", "exact"),
    ("pca", "exact"),
    ("pca_rectified", "exact"),
    ("ica", "exact"),
    ("random_directions", "exact"),
    ("random_sae", "exact"),
    ("das", "exact"),
)
"""As many as a comparison has."""


def curves() -> pd.DataFrame:
    rows = []
    for dictionary, ranking in DICTIONARIES:
        for kind in ("sufficiency", "necessity"):
            k = np.array([0, 1, 2, 4, 8, 16, 64, 256])
            f = k / 256 if kind == "sufficiency" else 1 - k / 256
            rows.append(
                pd.DataFrame(
                    {
                        "dictionary": dictionary,
                        "ranking": ranking,
                        "curve": kind,
                        "k": k,
                        "faithfulness": f,
                        "low": f - 0.1,
                        "high": f + 0.1,
                        "edit_magnitude": np.sqrt(k),
                        "n_pairs": 30,
                        "n_clusters": 12,
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


SUMMARY = pd.DataFrame(
    {
        "dictionary": [dictionary for dictionary, _ in DICTIONARIES],
        "ranking": [ranking for _, ranking in DICTIONARIES],
        "log_area": 0.5,
        "lead": np.linspace(0.0, 0.4, len(DICTIONARIES)),
        "lead_low": -0.1,
        "lead_high": 0.5,
    }
)

SELECTION = pd.DataFrame(
    {
        "site": ["layers.0.mixer", "layers.2.mixer"] * 5,
        "feature": [*(str(i) for i in range(9)), "error"],
        "selected": True,
        "confirmed": [True, False] * 5,
        "q_value": 0.01,
        "discovery_oriented": RNG.normal(size=10),
        "validation_oriented": RNG.normal(size=10),
        "validation_low": -1.0,
        "validation_high": 1.0,
    }
)

BLOCKS = pd.DataFrame(
    {
        "site": ["layers.0.mixer", "layers.2.mixer"],
        "n_nodes": [10, 20],
        "share": [0.4, 0.6],
        "effective_features": [3.0, 8.0],
        **{f"recovered{suffix}": [0.3, 0.5] for suffix in ("", "_low", "_high")},
        **{f"recovered_with_error{suffix}": [0.4, np.nan] for suffix in ("", "_low", "_high")},
    }
)

DESIGNED = pd.DataFrame(
    {
        "kind": np.repeat(["uaug_make", "uaug_break", "cpg_transposition"], 20),
        "role": [*(["effect", "sham"] * 20), *(["decoy"] * 20)],
        "is_sham": [*([False, True] * 20), *([False] * 20)],
        "split": ["discovery", "validation"] * 30,
        "total_effect": RNG.random(60),
        "predicted_difference": RNG.normal(size=60),
        "difference": RNG.normal(size=60),
    }
)

AGREEMENT = pd.DataFrame(
    {
        "split": ["validation"],
        "has_indel": [False],
        "spearman": [0.5],
        "low": [0.3],
        "high": [0.7],
        "n_pairs": [30],
    }
)

STEPS = pd.DataFrame(
    {
        "order": ["attribution"] * 4 + ["random_0"] * 4,
        "tau": 0.1,
        "step": [0, 1, 2, 3] * 2,
        "n_nodes": [100, 30, 8, 2, 100, 50, 20, 9],
        "divergence": [0.0, 0.01, 0.2, 0.9, 0.0, 0.05, 0.4, 0.8],
        "edit_magnitude": [5.0, 4.0, 2.0, 1.0] * 2,
        "screening": "halving",
    }
)

CIRCUIT = pd.DataFrame(
    {
        "site": ["layers.0.mixer"] * 12 + ["layers.2.mixer"] * 2,
        "feature": [str(i) for i in range(12)] + ["7", "error"],
        "attribution": RNG.normal(size=14),
    }
)

EDGES = pd.DataFrame(
    {
        "upstream_site": "layers.0.mixer",
        "upstream_feature": [str(i) for i in range(12)],
        "site": "layers.2.mixer",
        "feature": ["7", "error"] * 6,
        "estimate": RNG.normal(size=12),
        "exact": [0.5] * 6 + [np.nan] * 6,
    }
)

QUALITY = pd.DataFrame(
    {
        "tau": [0.01, 0.1, 1.0],
        "n_nodes": [60, 12, 0],
        "n_pairs": 30,
        "n_clusters": 12,
        **{
            f"{name}{end}": np.array(values) + shift
            for name, values in (
                ("faithfulness", [0.9, 0.7, 0.0]),
                ("completeness", [0.1, 0.4, 1.0]),
                ("masks", [0.8, 0.6, 0.0]),
                ("random", [0.3, 0.05, 0.0]),
            )
            for end, shift in (("", 0.0), ("_low", -0.1), ("_high", 0.1))
        },
    }
)

CONTRIBUTIONS = CIRCUIT[["site", "feature"]].assign(contribution=np.linspace(0.4, -0.05, 14), tau=0.1)

POSITIONS = pd.DataFrame(
    {
        "has_indel": [False, True],
        "following_low": [0.2, 0.5],
        "following_high": [0.5, 0.9],
        "n_pairs": [20, 21],
        "predicted": [0.5, 0.6],
        "known": [0.7, np.nan],
        "feature_effect": [0.2, 0.3],
        "feature_effect_low": [0.1, np.nan],
        "feature_effect_high": [0.3, np.nan],
    }
)

FIGURES = {
    "intervention_curves": lambda: intervention_curves(curves()),
    "baseline_curves": lambda: baseline_curves(curves(), SUMMARY),
    "acdc_curves": lambda: acdc_curves(STEPS),
    "feature_effects": lambda: feature_effects(SELECTION, target="functional_mrl"),
    "block_comparison": lambda: block_comparison(BLOCKS),
    "predicted_difference": lambda: predicted_difference(
        DESIGNED, target="functional_mrl", agreement=AGREEMENT
    ),
    "circuit_quality": lambda: circuit_quality(QUALITY, CONTRIBUTIONS),
    "position_effects": lambda: position_effects(POSITIONS, target="functional_mrl"),
    "designed_effects": lambda: designed_effects(DESIGNED, target="functional_mrl"),
    "circuit_graph": lambda: circuit_graph(
        CIRCUIT, EDGES, sites=["layers.0.mixer", "layers.2.mixer"], note="tau = 0.1"
    ),
}


def png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=60, metadata={"Software": None})
    return out.getvalue()


@pytest.mark.parametrize("name", FIGURES)
def test_drawn_and_the_same_each_time(name):
    first = png(FIGURES[name]())
    assert len(first) > 2000
    assert first == png(FIGURES[name]())


@pytest.mark.parametrize("name", FIGURES)
def test_figures_can_be_read(name):
    assert legible(FIGURES[name]()) == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda: intervention_curves(curves().head(0)),
        lambda: baseline_curves(curves().head(0), SUMMARY.head(0)),
        lambda: acdc_curves(STEPS.head(0)),
        lambda: feature_effects(SELECTION.assign(selected=False), target="functional_mrl"),
        lambda: block_comparison(BLOCKS.head(0)),
        lambda: predicted_difference(DESIGNED.head(0), target="functional_mrl"),
        lambda: designed_effects(DESIGNED.head(0), target="functional_mrl"),
        lambda: circuit_quality(QUALITY.head(0), CONTRIBUTIONS.head(0)),
        lambda: position_effects(POSITIONS.head(0), target="functional_mrl"),
        lambda: circuit_graph(CIRCUIT.head(0), EDGES.head(0), sites=["layers.0.mixer"]),
    ],
)
def test_empty_tables_give_an_empty_figure(draw):
    assert png(draw())


def test_hidden_nodes_are_counted_not_lost():
    figure = circuit_graph(CIRCUIT, EDGES, sites=["layers.0.mixer", "layers.2.mixer"])
    words = [text.get_text() for text in figure.axes[0].texts]
    assert any("+ 2 more" in w for w in words)


def test_interval_of_held_out_pairs_is_written_in_the_figure():
    figure = predicted_difference(DESIGNED, target="functional_mrl", agreement=AGREEMENT)
    assert any("Spearman 0.50 [0.30, 0.70]" in text.get_text() for text in figure.axes[0].texts)
