"""What a feature is called, in every table, page, figure and AnnData."""

from __future__ import annotations

import re

ERROR = "error"
"""The node that stands for what no feature of a site accounts for."""

POOLED = "pooled"
"""In tables, the configuration of dictionaries that were pooled from the seeds of another one."""

SHIPPED = "shipped"
"""In tables, the configuration of autoencoders that come with the model and were not trained here."""

_LAYER = re.compile(r"layers\.(\d+)")


def feature_name(site: str, feature: object) -> str:
    """Name of a feature by its site and number.

    Examples
    --------
    >>> feature_name("layers.4.mixer", 466), feature_name("layers.4", 12), feature_name("blocks.0", "error")
    ('L4.mixer.466', 'L4.12', 'blocks.0 error')
    """
    place = _LAYER.sub(r"L\1", site, count=1)
    return f"{place} error" if str(feature) == ERROR else f"{place}.{feature}"


def anchor_of(name: str) -> str:
    """The same where only letters, digits, ``-``, ``_`` and ``.`` may stand, as in links and names of files."""
    return re.sub(r"[^\w.\-]", "_", name)
