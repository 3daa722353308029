"""Nodes of the extraction pipeline."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from helix_sae.pipelines.extraction.parameters import ExtractionParameters

if TYPE_CHECKING:
    from helix_sae.activations.plan import ExtractionPlan
    from helix_sae.activations.stream import ActivationStream
    from helix_sae.models.registry import ModelHandle
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    ActivationStream = ExtractionPlan = ModelHandle = Any


def plan(
    table: pd.DataFrame, handle: ModelHandle, parameters: ExtractionParameters
) -> ExtractionPlan | ActivationStream:
    """State the shards to compute. The store computes those that it lacks, where its engine runs.

    With ``mode: stream`` the plan is handed on as activations that are computed when they are read.
    """
    from helix_sae.activations.plan import plan_extraction
    from helix_sae.activations.stream import ActivationStream
    from helix_sae.models.extraction import extract_activations
    from helix_sae.models.registry import open_model

    model = open_model(handle)
    sites = parameters.sites or list(model.default_sites)
    model.check_sites(sites)
    made = plan_extraction(
        table,
        fingerprint=handle.fingerprint,
        sites=sites,
        compute=partial(
            extract_activations, handle=handle, sites=tuple(sites), token_budget=parameters.token_budget
        ),
        codon_markers=handle.codon_markers,
        dtype=parameters.dtype,
        precision=handle.dtype,
        shard_tokens=parameters.shard_tokens,
        tokens_per_sequence=parameters.tokens_per_sequence,
    )
    return ActivationStream(made) if parameters.mode == "stream" else made
