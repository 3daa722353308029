"""Which features the model's predictions depend on, by intervention."""

from helix_sae.pipelines.causal_acdc.pipeline import create_pipeline

__all__ = ["create_pipeline"]
