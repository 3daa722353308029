"""Sparse autoencoders: architectures, training, measures, codes and interchange with SAELens."""

from __future__ import annotations

from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.batches import ArrayBatches
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
from helix_sae.sae.interchange import load_metadata, load_sae, save_sae
from helix_sae.sae.learner import SaeKey
from helix_sae.sae.metrics import SaeEvaluation, evaluate_sae
from helix_sae.sae.registry import random_autoencoder
from helix_sae.sae.resume import Scratch
from helix_sae.sae.scaling import InputScaling, estimate_scaling
from helix_sae.sae.training import EarlyStopping, TrainingResult, train_saes

__all__ = [
    "AnySaeConfig",
    "ArrayBatches",
    "BatchTopKConfig",
    "EarlyStopping",
    "GatedConfig",
    "InputScaling",
    "JumpReluConfig",
    "MatryoshkaConfig",
    "ReluConfig",
    "ReluTiedConfig",
    "SaeConfig",
    "SaeEvaluation",
    "SaeKey",
    "Scratch",
    "SparseAutoencoder",
    "TokenCodes",
    "TopKConfig",
    "TrainingResult",
    "encode_stream",
    "estimate_scaling",
    "evaluate_sae",
    "load_metadata",
    "load_sae",
    "parse_sae_config",
    "pool_codes",
    "random_autoencoder",
    "save_sae",
    "sequence_anndata",
    "train_saes",
]
