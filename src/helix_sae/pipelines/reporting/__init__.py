"""The run report and the feature atlas."""

from helix_sae.pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
