"""Parameters of the correlation pipeline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from helix_sae.mrna.columns import property_name

MIN_PERMUTATIONS = 20
"""With fewer, no share of runs can be told from the level."""


class ConceptParameters(BaseModel):
    """How features are matched with nucleotide-level concepts.

    Attributes
    ----------
    max_nucleotides : int
        Whole sequences are taken, in the order of a hash of their ids, up to that many nucleotides.
    min_positive : int
        A concept with fewer labelled nucleotides in a part of the split is left out, with a warning.
    n_shifts : int
        Circular shifts of the null; 0 for none.
    kmer_sizes : list of int
        Of the k-mer detectors among the baselines; 1 to 6.
    random_model : bool
        Whether an SAE on the same architecture with random weights stands among the baselines.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_nucleotides: int = Field(120_000, ge=100)
    min_positive: int = Field(20, ge=1)
    n_shifts: int = Field(100, ge=0)
    kmer_sizes: list[Annotated[int, Field(ge=1, le=6)]] = Field(default_factory=lambda: [1, 3, 4])
    random_model: bool = True


class CorrelationParameters(BaseModel):
    """What is tested and how strictly.

    Attributes
    ----------
    properties : list of str, optional
        Columns of the mRNA table, or of the file under their own names; all functional_, structural_ and
        regulatory_ ones when not given.
    leave_out : list of str
        Prefixes of columns not to test.
    confounders : list of str
        Columns held fixed in the partial correlations.
    alpha : float
        Level of the false discovery rate over features x properties x sites.
    correction : {"bh", "by"}
        Benjamini-Hochberg or Benjamini-Yekutieli.
    min_labels, min_active : int
        Fewer labels: the property is not tested. Active in fewer sequences: the feature counts as dead.
    n_resamples : int
        Of the cluster bootstrap.
    n_permutations : int
        Of the calibration; 0 for none, else at least 20.
    top_features : int
        Per property, in the high-against-low validation and the heatmap.
    certified_only : bool
        Whether only certified features are tested and matched.
    concepts : ConceptParameters
    seed : int
        Of the resamples and permutations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    properties: list[str] | None = None
    leave_out: list[str] = Field(default_factory=lambda: ["regulatory_codon_usage_"])
    confounders: list[str] = Field(
        default_factory=lambda: ["structural_gc_content", "structural_length", "source"]
    )
    alpha: float = Field(0.05, gt=0, lt=1)
    correction: Literal["bh", "by"] = "bh"
    min_labels: int = Field(20, ge=4)
    min_active: int = Field(5, ge=1)
    n_resamples: int = Field(2000, ge=2000)
    n_permutations: int = Field(20, ge=0)
    top_features: int = Field(10, ge=1)
    certified_only: bool = False
    concepts: ConceptParameters
    seed: int = Field(0, ge=0)

    @field_validator("properties")
    @classmethod
    def _named_as_the_table_has_them(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else [property_name(name) for name in value]

    @field_validator("n_permutations")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < MIN_PERMUTATIONS:
            raise ValueError(f"a calibration needs at least {MIN_PERMUTATIONS} permutations; 0 leaves it out")
        return value
