"""Activations of a model: planned, stored in content-addressed shards or streamed, read, looked after.

::

    plan = plan_extraction(table, fingerprint=handle.fingerprint, sites=sites, compute=compute)
    activations = stream_activations(plan)  # computed whenever they are read
    activations = save_activations(activations, "my_activations")  # or computed once
    activations.mean(sites)
"""

from helix_sae.activations.activations import Activations, Part, SequenceActivations, TokenRows
from helix_sae.activations.plan import ExtractionPlan, plan_extraction
from helix_sae.activations.store import open_activations
from helix_sae.activations.stream import stream_activations
from helix_sae.activations.writing import save_activations

__all__ = [
    "Activations",
    "ExtractionPlan",
    "Part",
    "SequenceActivations",
    "TokenRows",
    "open_activations",
    "plan_extraction",
    "save_activations",
    "stream_activations",
]
