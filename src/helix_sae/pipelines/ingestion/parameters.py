"""Parameters of the ingestion pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from helix_sae.mrna.lengths import MAX_TOKENS, OnLongSequence
from helix_sae.mrna.motifs import UserMotif
from helix_sae.mrna.records import Reporter


class SplitParameters(BaseModel):
    """Share of the clusters on which things are found, and on which they are confirmed.

    Attributes
    ----------
    discovery, validation : float
        Shares in (0, 1) that add up to 1.
    seed : int
        Decides, with a cluster's name, where the cluster goes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    discovery: float = Field(0.7, gt=0, lt=1)
    validation: float = Field(0.3, gt=0, lt=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _whole(self) -> SplitParameters:
        if abs(self.discovery + self.validation - 1) > 1e-9:
            raise ValueError("discovery and validation have to add up to 1")
        return self


class IngestionParameters(BaseModel):
    """How raw records become the mRNA table.

    Attributes
    ----------
    columns : dict
        Column of the table -> column of the file, e.g. ``{sequence: utr, mrl: mean_load}``; null leaves one
        out. A name without a prefix is that of a ``functional_`` column.
    reporter : Reporter, optional
        Constant flanks around bare 5'UTRs.
    counted_from : {0, 1}
        Whether ``cds_start`` and ``cds_end`` are 0-based half-open, or count from 1 with both positions in
        the region. GFF3 and GenBank say so themselves.
    max_tokens : int, optional
        Longest input of the model, an ``E`` for each codon among it; null for any length.
    on_long_sequence : {"error", "cut", "set_aside"}
        Whether a longer sequence stops the run, keeps its 5' end, or is set aside in ``rejected_records``.
    on_bad_record : {"error", "set_aside"}
        Whether a record that cannot be used stops the run or is set aside in ``rejected_records``.
    cluster_by : str
        ``auto``, ``similarity``, ``none`` or a column.
    max_records : int, optional
        Take that many records, drawn by ``split.seed`` a cluster at a time, from a larger file.
    with_structure : bool
        Fold with ViennaRNA: minimum free energy and pairing concepts. Needs the ``structure`` extra.
    mirna_seeds : dict, optional
        Name -> nucleotides 2 to 8 of miRNAs; those of the simulator when not given.
    motifs : list of UserMotif
        Concepts of the user's own.
    split : SplitParameters
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, str | None] = Field(default_factory=dict)
    reporter: Reporter | None = None
    counted_from: Literal[0, 1] = 0
    max_tokens: int | None = Field(MAX_TOKENS, ge=10)
    on_long_sequence: OnLongSequence = "error"
    on_bad_record: Literal["error", "set_aside"] = "error"
    cluster_by: str = "auto"
    max_records: int | None = Field(None, ge=10)
    with_structure: bool = False
    mirna_seeds: dict[str, str] | None = None
    motifs: list[UserMotif] = Field(default_factory=list)
    split: SplitParameters
