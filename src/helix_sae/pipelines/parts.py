"""Nodes whose part is left out by name where the data do not allow it, while the rest of the run goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from kedro.pipeline import Node, node

from helix_sae.errors import AnalysisError
from helix_sae.left_out import LeftOut, left_out_of

LOGGER = logging.getLogger(__name__)

_STRUCTURES = ("probe", "effects_", "experiment")
_DOCUMENTS = ("circuit_graph", "sae_sweep_pick")


def part_node(
    function: Callable[..., Any],
    inputs: Sequence[str] | Mapping[str, str],
    outputs: str | Sequence[str],
    *,
    name: str,
    part: str,
) -> Node:
    """A node that gives :class:`~helix_sae.left_out.LeftOut` where its part cannot be done.

    That is where one of its inputs was left out, or where the function raises an
    :class:`~helix_sae.errors.AnalysisError`: the data do not allow it. Any other error stops the run.

    Parameters
    ----------
    function, inputs, outputs, name
        As for :func:`kedro.pipeline.node`.
    part : str
        What the node does, in words, as a reader of the report knows it.
    """
    names = [outputs] if isinstance(outputs, str) else list(outputs)

    @wraps(function)
    def run_or_leave_out(*arguments: Any, **named: Any) -> Any:
        missing = next(filter(None, map(left_out_of, (*arguments, *named.values()))), None)
        if missing is None:
            try:
                return function(*arguments, **named)
            except AnalysisError as error:
                LOGGER.warning("Left out: %s. %s", part, error)
                missing = LeftOut(part, str(error))
        kept = [_as_kept(missing, output) for output in names]
        return kept[0] if isinstance(outputs, str) else tuple(kept)

    given = dict(inputs) if isinstance(inputs, Mapping) else list(inputs)
    return node(run_or_leave_out, given, outputs if isinstance(outputs, str) else names, name=name)


def _as_kept(missing: LeftOut, output: str) -> Any:
    """What the dataset of an output can keep: a figure, a document, the object itself, or a table."""
    if output.endswith("_figure"):
        return _figure(missing)
    if output.endswith("_plotly"):
        import plotly.graph_objects as go

        text = f"{missing.part}: left out. {missing.reason}"
        return go.Figure().add_annotation(text=text, showarrow=False)
    if output in _DOCUMENTS:
        return missing.document()
    if output.startswith(_STRUCTURES) and not output.startswith("probe_"):
        return missing
    return missing.table()


def _figure(missing: LeftOut) -> Any:
    import textwrap

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 2.5), layout="constrained")
    words = textwrap.fill(f"Left out: {missing.part}. {missing.reason}", 80)
    figure.text(0.5, 0.5, words, ha="center", va="center", fontsize=9)
    return figure
