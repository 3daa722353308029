"""Labelled sequences beyond those that are interpreted: a probe may learn from them, nothing is patched in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from helix_sae.errors import DataError
from helix_sae.mrna.clusters import assign_clusters


class FurtherRecords(NamedTuple):
    """Records that a probe may be fitted on in addition, and why others may not.

    Attributes
    ----------
    table : DataFrame
        Rows of the further table that may be used, with ``cluster`` in the names of the main table's
        clusters.
    left_out : dict of str to int
        Number of records by reason.
    """

    table: pd.DataFrame
    left_out: dict[str, int]


def further_records(
    extra: pd.DataFrame,
    table: pd.DataFrame,
    validation: pd.Series,
    target: str,
    *,
    limit: int | None = None,
    seed: int = 0,
) -> FurtherRecords:
    """Choose the records that tell the probe nothing about the held-out families.

    A record is left out when it lacks the target, when its sequence is in the main table already, and when it
    is similar to a sequence of a held-out cluster (:func:`helix_sae.mrna.clusters.assign_clusters`). Those
    that are similar to sequences of discovery clusters join these clusters, so that folds do not cut through
    relatives.

    Parameters
    ----------
    extra, table : DataFrame
        mRNA tables: ``sequence_id, sequence, cluster`` and the target's column.
    validation : Series of bool
        Rows of ``table`` that the probe is judged on.
    target : str
        Column of the property.
    limit : int, optional
        Keep at most that many, drawn at random.
    seed : int
        Of that draw.

    Raises
    ------
    DataError
        If the further table lacks the target, or none of its records can be used.
    """
    if target not in extra:
        raise DataError(
            f"The further labelled records (probe_sequences) have no column {target!r}; they have "
            f"{', '.join(map(str, extra.columns))}. Map the file's column in ingestion.columns."
        )
    left_out: dict[str, int] = {}
    known = extra[pd.to_numeric(extra[target], errors="coerce").notna()]
    left_out[f"{target} missing"] = len(extra) - len(known)
    new = known[~known["sequence"].isin(table["sequence"])].drop_duplicates("sequence")
    left_out["sequence known already"] = len(known) - len(new)
    if limit is not None and len(new) > limit:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(new))[:limit])
        left_out["beyond max_extra"] = len(new) - limit
        new = new.iloc[chosen]
    joined = assign_clusters(
        [*table["sequence"], *new["sequence"]],
        {"cluster": [*table["cluster"].astype(str), *[None] * len(new)]},
        "cluster",
    )
    held = set(np.asarray(joined[: len(table)])[validation.to_numpy(dtype=bool)])
    clusters = np.asarray(joined[len(table) :], dtype=object)
    apart = np.array([name not in held for name in clusters], dtype=bool)
    left_out["similar to a held-out sequence"] = int((~apart).sum())
    kept = new.assign(cluster=clusters)[apart].reset_index(drop=True)
    left_out = {reason: n for reason, n in left_out.items() if n}
    if kept.empty:
        reasons = "; ".join(f"{n} {reason}" for reason, n in left_out.items()) or "there is none"
        raise DataError(f"None of the further labelled records (probe_sequences) can be used: {reasons}.")
    return FurtherRecords(kept, left_out)
