"""Sparse autoencoders: architectures, training, measures, codes and interchange with SAELens."""

from __future__ import annotations

from helix_sae.sae.absorption import absorption, kmers_ending
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.batches import ArrayBatches
from helix_sae.sae.certification import Certificate, certify
from helix_sae.sae.codes import TokenCodes, encode_stream, pool_codes, sequence_anndata
from helix_sae.sae.config import (
    AnySaeConfig,
    BatchTopKConfig,
    GatedConfig,
    JumpReluConfig,
    MatryoshkaConfig,
    ReluConfig,
    ReluTiedConfig,
    SaeConfig,
    TopKConfig,
    parse_sae_config,
)
from helix_sae.sae.downstream import downstream_measures, probe_kept, run_spliced
from helix_sae.sae.interchange import load_metadata, load_sae, save_sae
from helix_sae.sae.learner import SaeKey
from helix_sae.sae.metrics import SaeEvaluation, evaluate_sae
from helix_sae.sae.probing import Sample, sparse_probes
from helix_sae.sae.registry import random_autoencoder
from helix_sae.sae.resume import Scratch
from helix_sae.sae.scaling import InputScaling, estimate_scaling
from helix_sae.sae.stability import (
    SeedFeatures,
    feature_stability,
    held_out_features,
    match_of_seeds,
    matched_cosines,
    stability_summary,
)
from helix_sae.sae.synthetic import KnownFeatures, SyntheticConfig, judge_stability
from helix_sae.sae.training import EarlyStopping, TrainingResult, train_saes

__all__ = [
    "AnySaeConfig",
    "ArrayBatches",
    "BatchTopKConfig",
    "Certificate",
    "EarlyStopping",
    "GatedConfig",
    "InputScaling",
    "JumpReluConfig",
    "KnownFeatures",
    "MatryoshkaConfig",
    "ReluConfig",
    "ReluTiedConfig",
    "SaeConfig",
    "SaeEvaluation",
    "SaeKey",
    "Sample",
    "Scratch",
    "SeedFeatures",
    "SparseAutoencoder",
    "SyntheticConfig",
    "TokenCodes",
    "TopKConfig",
    "TrainingResult",
    "absorption",
    "certify",
    "downstream_measures",
    "encode_stream",
    "estimate_scaling",
    "evaluate_sae",
    "feature_stability",
    "held_out_features",
    "judge_stability",
    "kmers_ending",
    "load_metadata",
    "load_sae",
    "match_of_seeds",
    "matched_cosines",
    "parse_sae_config",
    "pool_codes",
    "probe_kept",
    "random_autoencoder",
    "run_spliced",
    "save_sae",
    "sequence_anndata",
    "sparse_probes",
    "stability_summary",
    "train_saes",
]
