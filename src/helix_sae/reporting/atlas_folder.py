"""The atlas as a folder that opens from the disk: a page with the index of all features, and their cards in chunks.

A page that was opened from the disk may not fetch the files beside it, but may load them as scripts. So each
file of ``cards/`` is one call that hands over a compressed text, and the policy of the page allows no script
but the page's own, by its hash, and those that it loads.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from helix_sae.reporting import drawings, pages
from helix_sae.reporting.atlas import LOGO_FLANK, FeaturePage
from helix_sae.reporting.cards import card
from helix_sae.reporting.document import Statement
from helix_sae.reporting.index import GLOSSES, index_columns, property_columns
from helix_sae.reporting.maps import SequenceMap, shades

INDEX = "index.html"
CHUNK = 64
"""Cards in a file."""


def atlas_folder(
    made: Iterable[FeaturePage],
    features: pd.DataFrame,
    *,
    labels: pd.DataFrame | None = None,
    places: np.ndarray | None = None,
    sequences: SequenceMap | None = None,
    title: str,
    subtitle: str,
    target: str | None = None,
    flank: int = 25,
    first: Sequence[str] = (),
    words: Sequence[Statement] = (),
) -> dict[str, bytes]:
    """The files of the atlas by their names within its folder.

    Parameters
    ----------
    made : iterable of FeaturePage
        A card each, in the order of ``features``.
    features : DataFrame
        The living features (:func:`helix_sae.reporting.features.feature_table`), with ``suggested`` and
        ``rule`` where there are suggestions (:func:`helix_sae.reporting.labels.suggestions`).
    labels : DataFrame, optional
        The user's own: ``feature, label, note, author, date``.
    places : int (n, 2), optional
        Where the features lie on the maps of their sites (:func:`helix_sae.reporting.maps.feature_places`).
    sequences : SequenceMap, optional
    title, subtitle : str
    target : str, optional
        Column of the mRNA table whose value stands beside each window.
    flank : int
        Nucleotides on either side of a window's activation.
    first : sequence of str
        Names of the features that the index begins with.
    words : sequence of Statement
        Before the index (:meth:`helix_sae.reporting.atlas.AtlasTables.standing`).
    """
    files: dict[str, bytes] = {}
    rows: list[dict[str, Any]] = []
    cards = (_with_pooled(card(found, target), found, sequences) for found in _noted(made, rows))
    while chunk := list(islice(cards, CHUNK)):
        files[f"cards/{len(files):05d}.js"] = script_file(len(files), chunk)
    if sequences is not None:
        files["sequences.js"] = script_file("sequences", _sequences(sequences))
    own = pd.DataFrame(rows, columns=["density", "maximum", "letters", "chosen_for"])
    table = features.reset_index(drop=True).drop(columns=[c for c in own if c in features]).join(own)
    index = page(
        table,
        labels=labels,
        places=places,
        has_sequences=sequences is not None,
        title=title,
        subtitle=subtitle,
        target=target,
        flank=flank,
        first=first,
        words=words,
    )
    return {INDEX: index.encode(), **files}


def page(
    table: pd.DataFrame,
    *,
    labels: pd.DataFrame | None = None,
    places: np.ndarray | None = None,
    has_sequences: bool = False,
    title: str,
    subtitle: str,
    target: str | None = None,
    flank: int = 25,
    first: Sequence[str] = (),
    words: Sequence[Statement] = (),
) -> str:
    """The page with the index; ``table`` has a row a card, in their order."""
    names = [str(name) for name in table["name"]]
    place = {name: i for i, name in enumerate(names)}
    script = pages.source("atlas.js")
    data = {
        "columns": index_columns(table.assign(label="")),
        "first": [place[name] for name in first if name in place],
        "chunk": CHUNK,
        "flank": flank,
        "logoFlank": LOGO_FLANK,
        "hasTarget": target is not None,
        "glyphs": drawings.glyphs(),
        "labels": [] if labels is None else labels.astype(str).to_numpy().tolist(),
        "rules": _rules(table),
        "glosses": list(GLOSSES.items()),
        "places": None if places is None else places.T.tolist(),
        "hasSequences": has_sequences,
    }
    return pages.render(
        "feature_atlas.html.j2",
        title=title,
        subtitle=subtitle,
        words=list(words),
        cards={name: f"#{pages.anchor_of(name)}" for name in names},
        n_features=len(names),
        data=json_in_html(data),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


def _rules(table: pd.DataFrame) -> dict[str, list[Any]]:
    """The rules of the suggestions, once each, and for each row its place among them."""
    if "rule" not in table:
        return {"words": [], "codes": []}
    codes, found = pd.factorize(table["rule"].astype(str))
    return {"words": [str(rule) for rule in found], "codes": codes.tolist()}


def script_file(name: int | str, content: object) -> bytes:
    """A script that hands over some content: JSON, compressed, in letters that need no escaping."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    packed = base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode("ascii")
    return f'helixAtlasChunk({json.dumps(name)},"{packed}");\n'.encode("ascii")


def _with_pooled(made: dict[str, Any], page: FeaturePage, sequences: SequenceMap | None) -> dict[str, Any]:
    """The card, with the feature's pooled code of each sequence of the map."""
    if sequences is None or page.site not in sequences.pooled:
        return made
    return {**made, "pooled": shades(sequences.pooled[page.site], page.feature)}


def _sequences(found: SequenceMap) -> dict[str, Any]:
    """The map of sequences as the page reads it."""
    return {
        "ids": found.table["sequence_id"].astype(str).tolist(),
        "places": found.places.T.tolist(),
        "share": found.share,
        "columns": property_columns(found.table),
        "strongest": found.strongest,
    }


def json_in_html(data: object) -> Markup:
    """JSON for a ``<script type="application/json">``, which nothing in it can end."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _noted(made: Iterable[FeaturePage], rows: list[dict[str, Any]]) -> Iterator[FeaturePage]:
    """The same, noting of each what the index says of it."""
    for found in made:
        rows.append(
            {
                "density": found.density,
                "maximum": found.maximum,
                "letters": found.consensus,
                "chosen_for": found.chosen_for,
            }
        )
        yield found
