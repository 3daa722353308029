"""Parameters of the extraction pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ExtractionParameters(BaseModel):
    """Where activations are taken and how they are kept.

    Attributes
    ----------
    mode : {"auto", "store", "stream"}
        ``auto`` writes the activations to disk: all of them where they take at most 16 GB, else so many
        tokens of each sequence, drawn by hash; a second pass then makes the codes of all tokens. ``store``
        writes all of them. ``stream`` keeps none: the other nodes of the same run compute them anew whenever
        they read them.
    sites : list of str, optional
        Module paths of the model, e.g. ``layers.0.mixer`` (what the mixer adds) or ``layers.0`` (the residual
        stream after the block); the mixers when not given.
    dtype : {"float32", "float16", "bfloat16"}
        Of the stored activations.
    token_budget : int
        Tokens a batch of the model.
    shard_tokens : int
        Tokens a shard of the store.
    tokens_per_sequence : int, optional
        Keep that many tokens of each sequence, drawn by hash; decides in place of ``auto`` where it is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["auto", "store", "stream"] = "auto"
    sites: list[str] | None = Field(None, min_length=1)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    token_budget: int = Field(8192, ge=1)
    shard_tokens: int = Field(32768, ge=1)
    tokens_per_sequence: int | None = Field(None, ge=1)
