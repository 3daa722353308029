"""Parameters of the pretraining pipeline."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from helix_sae.helix.architecture import Architecture
from helix_sae.helix.pretraining import PretrainingOptions
from helix_sae.mrna.tokens import CodonMarkers


class PretrainingParameters(BaseModel):
    """How ``helix_mini`` is built, trained and judged.

    Attributes
    ----------
    phenotypes : list of str
        Columns of the training table that the phenotype head learns.
    markov_order : int
        Context, in tokens, of the Markov model that the next-token head is compared with.
    min_evaluated : int
        A phenotype with fewer held-out values is not scored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Architecture
    training: PretrainingOptions
    codon_markers: CodonMarkers = "cds"
    phenotypes: list[str] = Field(min_length=1)
    markov_order: int = Field(5, ge=0, le=7)
    min_evaluated: int = Field(100, ge=10)
