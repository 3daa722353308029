"""Wiring of the simulation pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from helix_sae.pipelines.simulation import nodes

_PARAMETERS = "params:simulation"


def create_pipeline(**_: object) -> Pipeline:
    """Demo records, their counterfactual pairs and truth, and the tables that ``helix_mini`` learns from."""
    return Pipeline(
        [
            node(nodes.simulate_demo, _PARAMETERS, "simulated_demo", name="simulate_demo"),
            node(
                nodes.export_demo,
                ["simulated_demo", _PARAMETERS],
                ["demo_chunks", "demo_truth"],
                name="export_demo",
            ),
            node(
                nodes.simulate_pairs, ["simulated_demo", _PARAMETERS], "designed_pairs", name="simulate_pairs"
            ),
            node(nodes.state_truth, None, "causal_truth", name="state_truth"),
            node(
                nodes.simulate_pretraining,
                _PARAMETERS,
                ["pretraining_table", "pretraining_heldout_table"],
                name="simulate_pretraining",
            ),
        ]
    )
