"""Parameters of the reporting pipeline."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReportingParameters(BaseModel):
    """What the reports show.

    Attributes
    ----------
    title : str
        Of the run report.
    n_features : int
        With which the index of the atlas begins.
    n_windows : int
        Strongest windows on each card.
    flank : int
        Nucleotides shown on either side of an activation.
    seed : int
        Of the windows that are drawn at random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field("What the features of an mRNA model stand for", min_length=1)
    n_features: int = Field(24, ge=1, le=200)
    n_windows: int = Field(8, ge=1, le=50)
    flank: int = Field(25, ge=3, le=60)
    seed: int = Field(0, ge=0)
