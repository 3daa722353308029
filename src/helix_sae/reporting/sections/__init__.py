"""The sections of the run report, one module each: tables in, statements, tables and figures out."""

from helix_sae.reporting.sections.associations import association_section
from helix_sae.reporting.sections.autoencoders import autoencoder_section
from helix_sae.reporting.sections.causes import cause_section
from helix_sae.reporting.sections.circuits import circuit_section
from helix_sae.reporting.sections.comparisons import comparison_section
from helix_sae.reporting.sections.concepts import concept_section
from helix_sae.reporting.sections.data import ModelFacts, data_section
from helix_sae.reporting.sections.effects import effect_section
from helix_sae.reporting.sections.prediction import prediction_section

__all__ = [
    "ModelFacts",
    "association_section",
    "autoencoder_section",
    "cause_section",
    "circuit_section",
    "comparison_section",
    "concept_section",
    "data_section",
    "effect_section",
    "prediction_section",
]
