"""What a table of sequences does not say and whole parts of a run need: what is left out for want of it, and what to give."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from helix_sae.mrna.columns import own_name


class Absence(NamedTuple):
    """Something that a file does not say.

    Attributes
    ----------
    what, consequence, remedy : str
        What is absent, what is left out for want of it, and what to give.
    """

    what: str
    consequence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.consequence}. {self.remedy}"


def absences(table: pd.DataFrame) -> list[Absence]:
    """What an mRNA table does not say, the most consequential first.

    Parameters
    ----------
    table : DataFrame
        An mRNA table.
    """
    found: list[Absence] = []
    measured = [str(name) for name in table.columns if str(name).startswith("functional_")]
    varying = [name for name in measured if table[name].nunique() > 1]
    if not measured:
        found.append(
            Absence(
                "measured properties",
                "associations are with computed properties alone, and predictions and their causes are"
                " left out",
                "Give a column of the file as causal_acdc.target, or map it in ingestion.columns.",
            )
        )
    elif not varying:
        constant = ", ".join(own_name(name) for name in measured)
        found.append(
            Absence(
                f"measured properties that vary ({constant}: the same everywhere)",
                "predictions and their causes are left out",
                "Give one that differs between sequences.",
            )
        )
    if table["cds_start"].isna().all():
        found.append(
            Absence(
                "start codons",
                "regions, reading frames, upstream AUGs and codons are not known, the model reads no codon"
                " markers, and edits of them are left out",
                "Give cds_start and cds_end, a GFF3 file, or ingestion.reporter for bare 5'UTRs in front of a"
                " reporter.",
            )
        )
    return found
