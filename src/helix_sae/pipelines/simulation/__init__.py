"""Simulated sequences with known causes."""

from helix_sae.pipelines.simulation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
