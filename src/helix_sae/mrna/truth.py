"""The simulator's causal graph as a table."""

from __future__ import annotations

import pandas as pd

from helix_sae.mrna import mechanism

_INITIATION = (
    (
        "uaug_overlapping",
        "mrl",
        -1.0,
        "cause",
        "reach *= 1 - p at an out-of-frame uAUG with no stop before the start",
    ),
    (
        "uorf_contained",
        "mrl",
        -mechanism.CONTAINED_LOSS,
        "cause",
        "reach *= 1 - 0.77 p at a uAUG closed before the start",
    ),
    ("uaug_kozak", "mrl", -mechanism.UAUG_SLOPE, "cause", "log-odds of p per bit of the uAUG's context"),
    (
        "main_kozak",
        "mrl",
        mechanism.MAIN_START_SLOPE,
        "cause",
        "log-odds of initiation per bit of the start's context",
    ),
    ("gc_5utr", "mrl", mechanism.GC_SLOPE, "cause", "log-odds of accessibility per unit of GC fraction"),
    ("uaug_in_frame", "mrl", 0.0, "decoy", "yields 0.876 p: replaces the main start without a net effect"),
    ("cpg_5utr", "mrl", 0.0, "decoy", "correlated through gc_5utr only"),
)
_WHOLE_TRANSCRIPT = (
    ("codon_adaptation", "te", mechanism.TE_ADAPTATION, "cause", "ln TE per standard deviation of ln CAI"),
    ("cds_length", "te", mechanism.TE_LENGTH, "cause", "ln TE per ln kilobase"),
    ("gc3", "te", 0.0, "decoy", "correlated through codon_adaptation only"),
    (
        "mean_csc",
        "half_life",
        mechanism.HALF_LIFE_STABILITY,
        "cause",
        "ln h per standard deviation of mean CSC",
    ),
    ("are_nonamer", "half_life", mechanism.HALF_LIFE_NONAMER, "cause", "ln h per UUAUUUAWW, up to 4"),
    ("mirna_8mer", "half_life", mechanism.HALF_LIFE_MIRNA, "cause", "ln h per site"),
    ("utr3_length", "half_life", mechanism.HALF_LIFE_LENGTH, "cause", "ln h per ln nucleotide"),
    ("are_pentamer", "half_life", 0.0, "decoy", "correlated through are_nonamer, which contains it"),
    ("gc_3utr", "half_life", 0.0, "decoy", "correlated through the AU-rich elements only"),
    ("te", "expression_level", 1.0, "cause", "ln protein per transcription = ln TE + ln half-life"),
    ("half_life", "expression_level", 1.0, "cause", "ln protein per transcription = ln TE + ln half-life"),
)


def truth_table() -> pd.DataFrame:
    """List the simulator's causes and decoys, one row per (cause, phenotype).

    Returns
    -------
    DataFrame
        ``cause``, ``phenotype``, ``coefficient`` (as it stands in the formula), ``sign`` (-1, 0 or 1: the
        direction of the total effect), ``role`` (``cause`` or ``decoy``) and ``form``, how the coefficient
        enters. What acts on the ribosome load acts on the translation efficiency in the same way, as the
        logarithm of initiation.
    """
    initiation_of_te = tuple((cause, "te", *rest) for cause, _, *rest in _INITIATION)
    table = pd.DataFrame(
        [*_INITIATION, *initiation_of_te, *_WHOLE_TRANSCRIPT],
        columns=pd.Index(["cause", "phenotype", "coefficient", "role", "form"]),
    )
    sign = (table["coefficient"] > 0).astype("int64") - (table["coefficient"] < 0).astype("int64")
    table.insert(3, "sign", sign)
    return table
