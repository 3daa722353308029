"""Activations of the model at its sites."""

from helix_sae.pipelines.extraction.pipeline import create_pipeline

__all__ = ["create_pipeline"]
