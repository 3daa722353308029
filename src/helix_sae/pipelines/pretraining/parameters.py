"""Parameters of the pretraining pipeline."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from helix_sae.models.helix.architecture import Architecture
from helix_sae.models.helix.pretraining import PretrainingOptions
from helix_sae.mrna.tokens import CodonMarkers


class FinishingParameters(BaseModel):
    """A last stage on another mixture of the same records.

    Attributes
    ----------
    shares : dict of str to float
        Share of the records of each source that takes part, from 0 to 1.
    training : PretrainingOptions
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    training: PretrainingOptions


class PretrainingParameters(BaseModel):
    """How ``helix_mini`` is built, trained and judged.

    Attributes
    ----------
    finishing : FinishingParameters, optional
    codon_markers : {"cds", "none"}
        Whether an ``E`` stands before each codon of a known coding region.
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
    finishing: FinishingParameters | None = None
    codon_markers: CodonMarkers = "cds"
    phenotypes: list[str] = Field(min_length=1)
    markov_order: int = Field(5, ge=0, le=7)
    min_evaluated: int = Field(100, ge=10)
