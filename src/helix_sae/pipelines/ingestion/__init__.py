"""Raw files to the mRNA table and its nucleotide annotations."""

from helix_sae.pipelines.ingestion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
