"""The atlas with the model behind it: ask about any sequence, edit it, intervene, search by example; and serve all of this.

::

    from helix_sae.explorer import Session, edit, intervene, make_record, saturation, strongest
"""

from __future__ import annotations

from helix_sae.explorer.contrast import Contrast, contrast
from helix_sae.explorer.edits import EditOutcome, Saturation, edit, saturation
from helix_sae.explorer.interventions import Intervention, Setting, intervene
from helix_sae.explorer.read_outs import CalibratedReadOut, calibrated, heads_of
from helix_sae.explorer.records import Record, make_record, pasted_records
from helix_sae.explorer.session import Feature, Reading, Reference, Session, reference_of
from helix_sae.explorer.tracks import Track, activations_along, concept_tracks, paired, strongest

__all__ = [
    "CalibratedReadOut",
    "Contrast",
    "EditOutcome",
    "Feature",
    "Intervention",
    "Reading",
    "Record",
    "Reference",
    "Saturation",
    "Session",
    "Setting",
    "Track",
    "activations_along",
    "calibrated",
    "concept_tracks",
    "contrast",
    "edit",
    "heads_of",
    "intervene",
    "make_record",
    "paired",
    "pasted_records",
    "reference_of",
    "saturation",
    "strongest",
]
