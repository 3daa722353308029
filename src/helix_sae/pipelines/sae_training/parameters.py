"""Parameters of the SAE training pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from helix_sae.sae import AnySaeConfig


def without_nulls(entries: Any) -> Any:
    """A mapping without the entries that are null: so an environment takes those of ``conf/base`` away."""
    if not isinstance(entries, Mapping):
        return entries
    given = cast("Mapping[str, Any]", entries)
    return {name: values for name, values in given.items() if values is not None}


class ScratchParameters(BaseModel):
    """Where the state of an unfinished training is kept, so that one that was killed goes on from there.

    Attributes
    ----------
    directory : str
        A local folder; runs of other inputs or parameters never take up each other's state.
    every_steps : int
        Steps between saves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str
    every_steps: int = Field(200, ge=1)

    @field_validator("directory")
    @classmethod
    def _is_local(cls, directory: str) -> str:
        if "://" in directory:
            raise ValueError(
                f"{directory} is not a local folder; name one of this machine, or set scratch to null"
            )
        return directory


class EarlyStoppingParameters(BaseModel):
    """When an autoencoder stops before the end: its loss on held-out tokens no longer falls.

    The price of activity is part of that loss. It is measured once that price counts in full, the features
    that are too many have been let go and the learning rate falls.

    Attributes
    ----------
    every_fraction : float
        Share of the steps between two measurements.
    patience : int
        Measurements without a gain after which it stops, and goes back to where the loss was lowest.
    min_gain : float
        Share of the lowest loss so far by which it has to fall for a gain.
    n_tokens : int
        At most so many held-out tokens are measured on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    every_fraction: float = Field(0.1, gt=0, le=1)
    patience: int = Field(2, ge=1)
    min_gain: float = Field(0.0, ge=0, lt=1)
    n_tokens: int = Field(4096, ge=2)


class DownstreamParameters(BaseModel):
    """How the reconstructions are tried on the model itself.

    Attributes
    ----------
    n_sequences : int
        Held-out sequences that are run with each site replaced.
    n_fitted : int
        Discovery sequences that the read-outs of the embedding are fitted on.
    targets : list of str, optional
        Properties to read out; all numeric ``functional_`` ones when not given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_sequences: int = Field(160, ge=1)
    n_fitted: int = Field(600, ge=10)
    targets: list[str] | None = None


class ProbingParameters(BaseModel):
    """How concepts are probed with few features, and how absorption is counted.

    Attributes
    ----------
    max_nucleotides : int
        Nucleotides of each part of the clusters that are used, whole sequences.
    sizes : list of int
        Numbers of features of the probes.
    max_tokens : int
        At most so many tokens of a part for one concept.
    longest_kmer : int
        Absorption of k-mers by those with one letter more, up to this length.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_nucleotides: int = Field(40_000, ge=100)
    sizes: list[int] = Field(default_factory=lambda: [1, 2, 5, 16], min_length=1)
    max_tokens: int = Field(3000, ge=20)
    longest_kmer: int = Field(3, ge=2, le=5)


class SaeTrainingParameters(BaseModel):
    """What is trained, and on how much.

    Attributes
    ----------
    saes : dict of str to SAE configuration
        By name; all are trained at every site in one pass over the activations. ``null`` takes an entry away
        that ``conf/base`` has.
    chosen : str
        The one whose checkpoints and codes the later pipelines use.
    dictionaries : {"auto", "train", "shipped"}
        Whether autoencoders are trained, or those that come with the model are used; ``auto`` trains where
        there are tokens enough to.
    n_seeds : int
        How many times each is trained, from starts and in orders of the data of their own; the first is the
        one that the later pipelines use, the others show which of its features come back.
    pooled_steps : int
        Steps of the dictionary that is pooled from the features which come back in three quarters of the
        seeds: the later pipelines use it in place of the first seed's. 0: none is pooled.
    batch_size : int
        Tokens a step.
    epochs : int
        Passes over the discovery part.
    min_steps : int
        Steps at least: small data are gone through as many times as that takes.
    max_steps : int, optional
        Steps at most.
    min_explained_variance : float
        Held-out explained variance of the chosen autoencoders below which the run ends with an error:
        features that do not describe what the model computes are not worth analysing.
    holdout_tokens : int
        At most that many tokens of the validation part are used for the held-out metrics.
    calibration_tokens : int
        Tokens that the input scaling is estimated from.
    log_every : int
        Steps between rows of the history.
    seed : int
        Of the first directions and the order of the tokens.
    device : str
        ``cpu``, ``cuda`` or ``auto``.
    precision : {"float32", "bfloat16"}
        Of the matrix products while training; ``bfloat16`` is for GPUs.
    compiled : bool
        Whether training steps go through ``torch.compile``; for long trainings on a GPU.
    scratch : ScratchParameters, optional
        Keep the state of an unfinished training; not kept when null.
    early_stopping : EarlyStoppingParameters, optional
        On by default; every step is trained when null.
    downstream : DownstreamParameters
    probing : ProbingParameters
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    saes: dict[str, AnySaeConfig] = Field(min_length=1)
    chosen: str
    dictionaries: Literal["auto", "train", "shipped"] = "auto"
    n_seeds: int = Field(1, ge=1, le=100)
    pooled_steps: int = Field(0, ge=0)
    batch_size: int = Field(4096, ge=2)
    epochs: int = Field(1, ge=1)
    min_steps: int = Field(4000, ge=1)
    max_steps: int | None = Field(None, ge=1)
    min_explained_variance: float = Field(0.5, le=1.0)
    holdout_tokens: int = Field(200_000, ge=1)
    calibration_tokens: int = Field(65_536, ge=2)
    log_every: int = Field(20, ge=1)
    seed: int = Field(0, ge=0)
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compiled: bool = False
    scratch: ScratchParameters | None = None
    early_stopping: EarlyStoppingParameters | None = EarlyStoppingParameters()  # pyright: ignore[reportCallIssue]
    downstream: DownstreamParameters = DownstreamParameters()  # pyright: ignore[reportCallIssue]
    probing: ProbingParameters = ProbingParameters()  # pyright: ignore[reportCallIssue]

    def n_steps(self, n_tokens: int) -> int:
        """Steps of a training on so many tokens."""
        wanted = max(self.min_steps, self.epochs * -(-n_tokens // self.batch_size))
        return min(wanted, self.max_steps or wanted)

    def n_epochs(self, n_tokens: int) -> int:
        """Passes over so many tokens that :meth:`n_steps` takes, the last one perhaps not whole."""
        return -(-self.n_steps(n_tokens) // -(-n_tokens // self.batch_size))

    @field_validator("saes", mode="before")
    @classmethod
    def _without_those_taken_away(cls, saes: Any) -> Any:
        return without_nulls(saes)

    @model_validator(mode="after")
    def _chosen_is_trained(self) -> SaeTrainingParameters:
        if self.chosen not in self.saes:
            raise ValueError(
                f"chosen is {self.chosen!r}, which is not one of {', '.join(map(repr, self.saes))}"
            )
        return self
