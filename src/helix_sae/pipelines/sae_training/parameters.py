"""Parameters of the SAE training pipeline."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from helix_sae.sae import AnySaeConfig


class SaeTrainingParameters(BaseModel):
    """What is trained, and on how much.

    Attributes
    ----------
    saes : dict of str to SAE configuration
        By name; all are trained at every site in one pass over the activations, which is how a sweep is written.
    chosen : str
        The one whose checkpoints and codes the later pipelines use.
    batch_size : int
        Tokens a step.
    epochs : int
        Passes over the discovery part.
    max_steps : int, optional
        Stop earlier.
    holdout_tokens : int
        At most that many tokens of the validation part are used for the held-out metrics.
    calibration_tokens : int
        Tokens that the input scaling is estimated from.
    log_every : int
        Steps between rows of the history.
    seed : int
    device : str
        ``cpu``, ``cuda`` or ``auto``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    saes: dict[str, AnySaeConfig] = Field(min_length=1)
    chosen: str
    batch_size: int = Field(4096, ge=2)
    epochs: int = Field(3, ge=1)
    max_steps: int | None = Field(None, ge=1)
    holdout_tokens: int = Field(200_000, ge=1)
    calibration_tokens: int = Field(65_536, ge=2)
    log_every: int = Field(20, ge=1)
    seed: int = Field(0, ge=0)
    device: str = "auto"

    @model_validator(mode="after")
    def _chosen_is_trained(self) -> SaeTrainingParameters:
        if self.chosen not in self.saes:
            raise ValueError(
                f"chosen is {self.chosen!r}, which is not one of {', '.join(map(repr, self.saes))}"
            )
        return self
