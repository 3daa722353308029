"""Parameters of the sweep."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from helix_sae.errors import ConfigurationError
from helix_sae.pipelines.sae_training.parameters import without_nulls
from helix_sae.sae.sweep import rungs_of

Value = bool | int | float | str

PRESENT = "present"
"""Name of the rung that `sae_training` uses now; no grid may have it."""


class RuleParameters(BaseModel):
    """Which rung is picked: of those that explain enough at every site the one with the fewest active features.

    Attributes
    ----------
    min_explained_variance : float
        Held-out explained variance that a rung needs at every site.
    as_sparse : float
        Rungs with at most this share more active features than the sparsest count as as sparse; of these
        the most stable is picked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_explained_variance: float = Field(0.95, le=1.0)
    as_sparse: float = Field(0.1, ge=0.0)


class SaeSweepParameters(BaseModel):
    """What is tried beside the settings that `sae_training` uses now, and how one of it is picked.

    Tokens, batches, seed and device are those of `sae_training`.

    Attributes
    ----------
    grids : dict of str to dict
        Each is settings of one architecture as in `sae_training.saes`, and `n_steps`; a list is tried value
        by value, with every value of the other lists. Without `n_steps` a rung is trained as long as
        `sae_training` trains. `null` takes a grid away that `conf/base` has.
    n_seeds : int
        Starts and orders of the data that each is trained from.
    rule : RuleParameters
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    grids: dict[str, dict[str, Value | list[Value] | None]] = Field(min_length=1)
    n_seeds: int = Field(3, ge=2, le=100)
    rule: RuleParameters = RuleParameters()  # pyright: ignore[reportCallIssue]

    @field_validator("grids", mode="before")
    @classmethod
    def _without_those_taken_away(cls, grids: Any) -> Any:
        return without_nulls(grids)

    @field_validator("grids")
    @classmethod
    def _are_settings(
        cls, grids: dict[str, dict[str, Value | list[Value] | None]]
    ) -> dict[str, dict[str, Value | list[Value] | None]]:
        if PRESENT in grids:
            raise ValueError(f"{PRESENT!r} is what `sae_training` uses now; give the grid another name")
        try:
            rungs_of(grids, n_steps=1)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return grids
