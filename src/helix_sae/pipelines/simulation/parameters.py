"""Parameters of the simulation pipeline."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Range = tuple[int, int]


class CorpusParameters(BaseModel):
    """How many simulated records of each kind.

    Attributes
    ----------
    reporters : int
        Constructs with a 5'UTR of exactly 50 nt, as in the reporter assays.
    uniform_fraction : float
        Share of the reporters' families that are uniformly random.
    constructs : int
        Constructs with a 5'UTR of ``construct_length`` nt.
    construct_length : (int, int)
        Shortest and longest of these 5'UTRs.
    transcripts : int
        Whole transcripts.
    n_per_family : int
        Relatives a family, at 5 to 10 % divergence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reporters: int = Field(ge=0)
    uniform_fraction: float = Field(0.5, ge=0, le=1)
    constructs: int = Field(ge=0)
    construct_length: Range = (25, 120)
    transcripts: int = Field(ge=0)
    n_per_family: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if not self.reporters + self.constructs + self.transcripts:
            raise ValueError("reporters, constructs and transcripts are all 0: at least one record is needed")
        low, high = self.construct_length
        if not 1 <= low <= high:
            raise ValueError(f"construct_length is {[low, high]}: a shortest and a longest length are needed")
        return self


class SimulationParameters(BaseModel):
    """What is simulated.

    Attributes
    ----------
    seed : int
        Seeds every table, each with a stream of its own.
    demo, pretraining, heldout : CorpusParameters
        The shipped records, the training set of ``helix_mini`` and the unseen families that it is judged on.
    missing_fraction : float
        Share of the demo's measured labels that its records lack.
    pairs_per_kind : int
        Counterfactual pairs for each kind of edit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(ge=0)
    demo: CorpusParameters
    pretraining: CorpusParameters
    heldout: CorpusParameters
    missing_fraction: float = Field(0.1, ge=0, lt=1)
    pairs_per_kind: int = Field(40, ge=1)
