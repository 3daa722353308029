"""What the features go along with: properties and concepts."""

from helix_sae.pipelines.correlation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
