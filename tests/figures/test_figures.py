"""Figures are drawn, hold what they were given, and can be read: no text over text, none outside the page."""

from __future__ import annotations

import io
import json

import figure_data
import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from legibility import legible
from matplotlib.text import Text

from helix_sae.figures.heatmap import association_heatmap, association_heatmap_interactive
from helix_sae.figures.layer_profile import layer_profile, layer_profile_interactive
from helix_sae.figures.metagene import metagene, metagene_interactive
from helix_sae.figures.qq import qq, qq_interactive
from helix_sae.figures.stability import feature_stability
from helix_sae.figures.style import ordered_colours, property_label, short_label, site_label, spread
from helix_sae.figures.sweep import sweep
from helix_sae.figures.training import feature_density, pareto, training_history, training_history_interactive
from helix_sae.figures.volcano import volcano, volcano_interactive
from helix_sae.names import feature_name

TABLE = figure_data.associations()
BEST = figure_data.best_matches(TABLE)


def calibrations():
    first, second = figure_data.calibration(), figure_data.calibration(1.02)
    return {"raw": first[0], "partial": second[0]}, {"raw": first[1], "partial": second[1]}


def small_calibrations():
    """Few tests, none of which lies above the page."""
    quantiles, summary = figure_data.calibration()
    few = quantiles.tail(20).assign(observed=lambda t: t["expected"] * 0.8)
    return {"raw": few, "partial": few}, {"raw": summary, "partial": summary}


FIGURES = {
    "volcano": lambda: volcano(TABLE),
    "volcano_capped": lambda: volcano(TABLE.assign(cluster_p_value=TABLE["cluster_p_value"] ** 9)),
    "volcano_nothing": lambda: volcano(TABLE.assign(q_value=1.0)),
    "heatmap": lambda: association_heatmap(TABLE, BEST),
    "heatmap_nothing": lambda: association_heatmap(TABLE.assign(q_value=1.0), BEST.head(0), n_features=12),
    "heatmap_one": lambda: association_heatmap(TABLE, BEST, n_features=1),
    "layer_profile": lambda: layer_profile(figure_data.hierarchy()),
    "metagene": lambda: metagene(figure_data.profiles(), names={100: "L0.mixer.100"}),
    "qq": lambda: qq(*calibrations()),
    "qq_small": lambda: qq(*small_calibrations()),
    "qq_nothing": lambda: qq({}, {}),
    "metagene_one_landmark": lambda: metagene({"start codon": figure_data.profiles()["start codon"]}),
    "metagene_shares": lambda: metagene(
        figure_data.profiles(), shares={("stop codon", "upstream", 101): 0.93}
    ),
    "metagene_nothing": lambda: metagene({}),
    "stability": lambda: feature_stability(figure_data.stability()),
    "stability_two_seeds": lambda: feature_stability(figure_data.stability(1)),
    "stability_unknown": lambda: feature_stability(figure_data.stability(0)),
    "training_history": lambda: training_history(figure_data.history(), figure_data.metrics()),
    "training_one_config": lambda: training_history(figure_data.history(("topk",))),
    "sweep": lambda: sweep(figure_data.rungs(), 0.95, "relu 3", "present"),
    "sweep_without_winner": lambda: sweep(figure_data.rungs().iloc[:3], 0.999, None, "present"),
    "pareto": lambda: pareto(figure_data.sweep()),
    "pareto_one_point": lambda: pareto(figure_data.metrics(("topk",)).iloc[:1]),
    "feature_density": lambda: feature_density(figure_data.densities()),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_can_be_read(name):
    assert legible(FIGURES[name]()) == []


def test_drawing_leaves_no_trace_in_matplotlib():
    before = dict(matplotlib.rcParams)
    volcano(TABLE)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in volcano.__globals__


@pytest.mark.parametrize("name", ["structural_$\\frac{$", "structural_$x^2$"])
def test_dollar_signs_are_words(name):
    """Columns and configurations are named by users; matplotlib would set these as formulas, or refuse to."""
    figure = volcano(TABLE.replace({"structural_mfe": name}), n_labels=12)
    plain = volcano(TABLE, n_labels=12)
    assert legible(figure) == []
    drawn = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    assert drawn
    assert not any(text.get_parse_math() for text in drawn)
    assert len(figure.findobj(Text)) == len(plain.findobj(Text))


def test_held_out_values_beyond_the_axes_are_shown_at_their_edge():
    metrics = figure_data.metrics(("topk",)).head(3)
    metrics = metrics.assign(explained_variance=[-2.5, 0.8, np.nan], l0=[30.0, 900.0, 31.0])
    figure = training_history(figure_data.history(("topk",)), metrics)
    assert legible(figure) == []
    shown = [
        {
            line.get_marker(): line.get_ydata()[0]
            for line in axes.lines
            if line.get_marker() in ("D", "v", "^")
        }
        for axes in figure.axes[:2]
    ]
    (low, _), (_, high) = (axes.get_ylim() for axes in figure.axes[:2])
    assert shown[0]["v"] == low > -2.5
    assert shown[1]["^"] == high < 900
    assert all(
        line.get_ydata()[0] <= 1
        for line in figure.axes[0].lines
        if line.get_marker() == "D" and np.isfinite(line.get_ydata()[0])
    )


def test_powers_of_logarithmic_axes_are_formulas():
    figure = training_history(figure_data.history(("a$_{", "$b")))
    figure.savefig(io.BytesIO(), format="png")
    axis = next(axes.yaxis for axes in figure.axes if axes.get_yscale() == "log")
    powers = [t.label1 for t in axis.get_major_ticks() if "10^" in t.label1.get_text()]
    assert powers
    assert all(text.get_parse_math() for text in powers)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "layer 0 mixer, a$_{" in names


def test_long_names_leave_room_for_the_figure():
    name = "structural_" + "a_very_long_name_" * 6
    for figure in (
        volcano(TABLE.replace({"structural_mfe": name}), n_labels=12),
        association_heatmap(*(t.replace({"structural_mfe": name}) for t in (TABLE, BEST))),
    ):
        assert legible(figure) == []
    assert short_label(name) == "A very long name a very long name a…"
    assert short_label("functional_mrl") == "MRL"


def test_the_volcano_counts_what_passes():
    figure = volcano(TABLE)
    texts = " ".join(text.get_text() for text in figure.findobj(Text))
    n = int((TABLE["q_value"] <= 0.05).sum())
    assert f"{n:,} at q" in texts
    assert f"{len(TABLE):,} tests" in texts


def test_the_volcano_labels_the_strongest_of_each_property():
    texts = {text.get_text() for text in volcano(TABLE, n_labels=12).findobj(Text)}
    assert {property_label(name) for name, _ in figure_data.PROPERTIES} <= texts


@pytest.mark.parametrize(
    ("figure", "n_traces"),
    [
        (lambda: volcano_interactive(TABLE), 4),
        (lambda: association_heatmap_interactive(TABLE, BEST), 1),
        (lambda: layer_profile_interactive(figure_data.hierarchy()), 4),
        (lambda: metagene_interactive(figure_data.profiles()), 8),
        (lambda: qq_interactive(calibrations()[0]), 5),
        (lambda: qq_interactive({}), 0),
        (lambda: metagene_interactive({}), 0),
        (lambda: training_history_interactive(figure_data.history()), 32),
    ],
)
def test_interactive_figures_are_plain_json(figure, n_traces):
    made = figure()
    content = json.loads(made.to_json())
    assert len(content["data"]) == n_traces
    assert content["layout"]["title"]["text"]


def test_small_pages_use_their_width():
    """What is not there must not take room: the axes of a QQ page keep most of its width."""
    figure = qq(*small_calibrations())
    figure.savefig(io.BytesIO(), format="png")
    assert sum(axes.get_position().width for axes in figure.axes) > 0.7


def test_metagene_rows_have_room_for_every_landmark():
    """The highest landmark sets a row's axis, whichever comes first."""
    profiles = figure_data.profiles()
    higher = profiles["stop codon"].assign(mean=lambda t: t["mean"] * 10)
    figure = metagene({"start codon": profiles["start codon"], "stop codon": higher})
    for row in range(4):
        left, right = figure.axes[2 * row : 2 * row + 2]
        assert left.get_ylim() == right.get_ylim()
        assert left.get_ylim()[1] > higher.loc[higher["feature"] == 100 + row, "mean"].max()


def test_metagene_ends_where_the_sequences_do():
    profile = figure_data.profiles()["start codon"]
    beyond = profile["position"] > 8
    short = profile.assign(
        n_sequences=profile["n_sequences"].where(~beyond, 0), mean=profile["mean"].where(~beyond)
    )
    figure = metagene({"start codon": short})
    assert all(axes.get_xlim() == (profile["position"].min(), 8) for axes in figure.axes)
    trace = metagene_interactive({"start codon": short}).to_plotly_json()["data"][0]
    assert max(trace["x"]) == 8
    nowhere = profile.assign(n_sequences=0)
    assert metagene({"start codon": nowhere}).axes[0].get_xlim()[1] == profile["position"].max()


def test_the_interactive_volcano_draws_every_point_that_passes():
    traces = {trace["name"]: trace for trace in volcano_interactive(TABLE).to_plotly_json()["data"]}
    for category in ("structural", "functional", "regulatory"):
        expected = ((TABLE["q_value"] <= 0.05) & (TABLE["category"] == category)).sum()
        assert len(traces[category]["x"]) == expected


def test_heatmap_cells_are_the_effects():
    figure = association_heatmap_interactive(TABLE, BEST, n_features=20)
    data = figure.to_plotly_json()["data"][0]
    lookup = TABLE.assign(
        row=[feature_name(*key) for key in zip(TABLE["site"], TABLE["feature"], strict=True)]
    )
    lookup = lookup.assign(column=lookup["property"].map(property_label)).set_index(["row", "column"])[
        "effect"
    ]
    for i, row in enumerate(data["y"]):
        for j, column in enumerate(data["x"]):
            assert data["z"][i][j] == pytest.approx(lookup[(row, column)], abs=1e-4)


def test_names_in_words():
    assert property_label("functional_mrl") == "MRL"
    assert property_label("structural_gc_5utr") == "GC 5′UTR"
    assert property_label("regulatory_uaug_count") == "uAUG count"
    assert property_label("functional_half_life") == "Half life"
    assert property_label("functional_te_hek293") == "te_hek293"
    assert property_label("regulatory_mirna_site_count") == "miRNA site count"
    assert site_label("layers.4.self_attn") == "layer 4 self attn"


@given(st.lists(st.floats(0, 1), max_size=12))
def test_labels_are_spread_in_order_and_inside(positions):
    placed = spread(positions, 0.05, 0.0, 1.0)
    assert all(-1e-9 <= p <= 1 + 1e-9 for p in placed)
    ordered = np.asarray(placed)[np.argsort(positions, kind="stable")]
    assert (np.diff(ordered) >= 0.05 - 1e-9).all()


def test_ordered_colours_differ():
    assert len(set(ordered_colours(8))) == 8
