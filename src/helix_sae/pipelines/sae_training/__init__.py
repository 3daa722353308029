"""Sparse autoencoders, their metrics and the codes they give."""

from helix_sae.pipelines.sae_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
