"""Which features a prediction depends on, by intervention.

::

    from helix_sae.causal import Experiment, align_table, screen

    exp = Experiment(model, saes, read_out, align_table(pairs))
    atp = exp.effects("atp")
    exact = exp.effects("exact", nodes=screen(atp, 24))
"""

from __future__ import annotations

from helix_sae.causal.acdc import Acdc, acdc
from helix_sae.causal.alignment import TokenPair, align_table
from helix_sae.causal.baselines import BASELINES, LinearDictionary, fit_baselines
from helix_sae.causal.comparison import (
    Comparison,
    compare_blocks,
    compare_dictionaries,
    estimator_agreement,
    verdict,
)
from helix_sae.causal.curves import (
    Curve,
    Ranking,
    ceilings,
    circuit_quality,
    curve_table,
    curves,
    faithfulness,
    minimality,
    rank_nodes,
)
from helix_sae.causal.edges import circuit_edges
from helix_sae.causal.effects import Effects, effects, screen
from helix_sae.causal.experiment import Experiment
from helix_sae.causal.inference import attribution, effects_table, orientation, select_and_test
from helix_sae.causal.interventions import all_nodes, patched_outputs
from helix_sae.causal.pairs import PairBounds, Pairs, designed_pairs, named_pairs, natural_pairs
from helix_sae.causal.read_out import Probe, fit_probe, head_probe
from helix_sae.causal.specification import Specification

__all__ = [
    "BASELINES",
    "Acdc",
    "Comparison",
    "Curve",
    "Effects",
    "Experiment",
    "LinearDictionary",
    "PairBounds",
    "Pairs",
    "Probe",
    "Ranking",
    "Specification",
    "TokenPair",
    "acdc",
    "align_table",
    "all_nodes",
    "attribution",
    "ceilings",
    "circuit_edges",
    "circuit_quality",
    "compare_blocks",
    "compare_dictionaries",
    "curve_table",
    "curves",
    "designed_pairs",
    "effects",
    "effects_table",
    "estimator_agreement",
    "faithfulness",
    "fit_baselines",
    "fit_probe",
    "head_probe",
    "minimality",
    "named_pairs",
    "natural_pairs",
    "orientation",
    "patched_outputs",
    "rank_nodes",
    "screen",
    "select_and_test",
    "verdict",
]
