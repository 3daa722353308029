"""A sweep over settings of the autoencoders, and the one that a rule picks."""

from helix_sae.pipelines.sae_sweep.pipeline import create_pipeline

__all__ = ["create_pipeline"]
