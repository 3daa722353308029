"""The shipped model and autoencoders as a session, and sequences to ask about."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helix_sae.commands.sharing import load_folder
from helix_sae.explorer import Record, Session, heads_of, make_record, reference_of
from helix_sae.models.helix.loading import load_helix

MODELS = Path(__file__).resolve().parents[2] / "data" / "06_models"
UTR = "GGGAAAUGCCGAUUUAAGCGCACCAUGGGCGAAGCUUAA"


def shipped_session(n_reference: int = 24) -> Session:
    """helix_mini, its autoencoders and heads, with random sequences for what is usual."""
    model = load_helix(MODELS / "helix_mini", device="cpu")
    saes = load_folder(MODELS / "helix_mini_saes")
    rng = np.random.default_rng(3)
    usual = [random_record(rng, 60) for _ in range(n_reference)]
    return Session(model, saes, heads_of(model), reference_of(model, saes, usual), title="helix_mini")


def random_record(rng: np.random.Generator, length: int, name: str = "random") -> Record:
    letters = "".join(rng.choice(list("ACGU"), length))
    return make_record(letters, name=name, cds_start=length // 2)
