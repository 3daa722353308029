"""Pretraining of ``helix_mini``."""

from helix_sae.pipelines.pretraining.pipeline import create_pipeline

__all__ = ["create_pipeline"]
