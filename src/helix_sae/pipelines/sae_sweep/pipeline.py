"""Wiring of the sweep."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from helix_sae.pipelines.parts import part_node
from helix_sae.pipelines.sae_sweep import nodes

_PARAMETERS = ["params:sae_sweep", "params:sae_training"]


def create_pipeline(**_: object) -> Pipeline:
    """Activations to a table of settings that were tried, and the one to set."""
    return Pipeline(
        [
            node(
                nodes.sweep_autoencoders,
                ["activations", "mrna_table", *_PARAMETERS],
                "sae_sweep",
                name="sweep_autoencoders",
            ),
            part_node(
                nodes.pick_settings,
                ["sae_sweep", *_PARAMETERS],
                "sae_sweep_pick",
                name="pick_settings",
                part="the pick of the sweep",
            ),
            node(nodes.draw_sweep, ["sae_sweep", "params:sae_sweep"], "sae_sweep_figure", name="draw_sweep"),
        ]
    )
