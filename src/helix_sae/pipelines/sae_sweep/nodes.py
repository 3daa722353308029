"""Nodes of the sweep."""

from __future__ import annotations

import json
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from helix_sae.errors import AnalysisError
from helix_sae.pipelines.sae_sweep.parameters import PRESENT, SaeSweepParameters
from helix_sae.pipelines.sae_training.parameters import SaeTrainingParameters
from helix_sae.pipelines.sae_training.tokens import check_enough, held_out, members, orders

if TYPE_CHECKING:
    from helix_sae.activations import Activations
    from helix_sae.sae.sweep import Rung
else:
    # Kedro resolves annotations to validate parameters; these types are too heavy to import for that.
    Activations = Rung = Any

LOGGER = logging.getLogger(__name__)

SWEPT = "swept"
"""Name under which the picked settings are to be set."""

_JUDGED_AT_ONCE = 8192
"""Held-out tokens a batch: far fewer and larger ones than in training, as hundreds of dictionaries go through them."""

_SHOWN = (
    "rung",
    "sparsity",
    "d_sae",
    "learning_rate",
    "n_steps",
    "lowest_explained_variance",
    "l0",
    "pw_mcc",
)


def sweep_autoencoders(
    activations: Activations,
    table: pd.DataFrame,
    parameters: SaeSweepParameters,
    training: SaeTrainingParameters,
) -> pd.DataFrame:
    """Train every rung, and what `sae_training` uses now, on the discovery part; measure on the validation part.

    Returns
    -------
    DataFrame
        ``sae_sweep``; see :func:`helix_sae.sae.sweep.train_sweep`.
    """
    from helix_sae.models.registry import resolve_device
    from helix_sae.progress import progress_bar
    from helix_sae.sae.sweep import over_sites, train_sweep

    activations.check_finite()
    discovery = members(table, activations, "discovery")
    n_tokens = activations.n_tokens_of(discovery)
    rungs = all_rungs(parameters, training, n_tokens)
    check_enough(n_tokens, activations.widths, {rung.name: rung.config for rung in rungs}, "sae_sweep.grids")
    longest = training.model_copy(
        update={"min_steps": max(rung.n_steps for rung in rungs), "max_steps": None}
    )
    judged = training.model_copy(update={"batch_size": _JUDGED_AT_ONCE})
    total = sum({rung.n_steps for rung in rungs})
    with progress_bar(
        f"training {len(rungs)} rungs from {parameters.n_seeds} seeds", total, "steps"
    ) as advance:
        done = _Steps(advance)
        sweep = train_sweep(
            orders(activations, discovery, longest),
            rungs,
            held_out(activations, table, judged),  # pyright: ignore[reportArgumentType]
            n_seeds=parameters.n_seeds,
            sites=list(activations.sites),
            seed=training.seed,
            calibration_tokens=training.calibration_tokens,
            log_every=training.log_every,
            device=resolve_device(training.device),
            precision=training.precision,
            compiled=training.compiled,
            progress=done,
        )
    LOGGER.info("the sweep, over all sites:\n%s", _table(over_sites(sweep)))
    return sweep


def all_rungs(parameters: SaeSweepParameters, training: SaeTrainingParameters, n_tokens: int) -> list[Rung]:
    """What `sae_training` uses now, and the combinations of every grid that are something else."""
    from helix_sae.sae.sweep import Rung as OneRung
    from helix_sae.sae.sweep import rungs_of

    n_steps = training.n_steps(n_tokens)
    present = OneRung(PRESENT, training.saes[training.chosen], n_steps)
    others = [rung for rung in rungs_of(parameters.grids, n_steps) if rung[1:] != present[1:]]
    return [present, *others]


def pick_settings(
    sweep: pd.DataFrame, parameters: SaeSweepParameters, training: SaeTrainingParameters
) -> dict[str, Any]:
    """Pick a rung by the rule, and say which parameters make it the one in use.

    Returns
    -------
    dict
        ``rung``; ``reason`` in words; ``measures`` of the rung and of what is ``present``; ``parameters``
        to put into ``conf/local``, empty where the settings in use are picked.

    Raises
    ------
    AnalysisError
        If no rung explains enough, naming the one that explains most.
    """
    from helix_sae.sae.sweep import over_sites, pick_rung

    pick = pick_rung(sweep, **parameters.rule.model_dump())
    rungs = over_sites(sweep).set_index("rung")
    name = str(pick.row["rung"])
    chosen = {} if name == PRESENT else _parameters(pick.row, training)
    LOGGER.info("%s", pick.reason)
    if chosen:
        LOGGER.info(
            "for conf/local/sae_training/parameters.yml:\n%s", yaml.safe_dump(chosen, sort_keys=False)
        )
    else:
        LOGGER.info("These are the settings that sae_training uses now.")
    return {
        "rung": name,
        "reason": pick.reason,
        "measures": _measures(rungs.loc[name]),
        "present": _measures(rungs.loc[PRESENT]),
        "parameters": chosen,
    }


def draw_sweep(sweep: pd.DataFrame, parameters: SaeSweepParameters) -> Any:
    """Explained variance and stability of all rungs against their active features, with the pick."""
    from helix_sae.figures.sweep import sweep as draw
    from helix_sae.sae.sweep import over_sites, pick_rung

    picked = None
    with suppress(AnalysisError):  # a sweep without a winner has no ring
        picked = str(pick_rung(sweep, **parameters.rule.model_dump()).row["rung"])
    return draw(over_sites(sweep), parameters.rule.min_explained_variance, picked, PRESENT)


def _parameters(row: pd.Series, training: SaeTrainingParameters) -> dict[str, Any]:
    """Parameters under which `sae_training` trains the rung and nothing else: entries that are there are taken away."""
    others: dict[str, Any] = dict.fromkeys(training.saes)
    n_steps = int(row["n_steps"])
    return {
        "sae_training": {
            "saes": {**others, SWEPT: json.loads(row["settings"])},
            "chosen": SWEPT,
            "min_steps": n_steps,
            "max_steps": n_steps,
        }
    }


def _measures(row: pd.Series) -> dict[str, Any]:
    names = ("lowest_explained_variance", "explained_variance", "l0", "n_features", "pw_mcc", "pw_mcc_lowest")
    rounded = {name: round(float(row[name]), 4) for name in names}
    return {name: value if math.isfinite(value) else None for name, value in rounded.items()}


def _table(rungs: pd.DataFrame) -> str:
    return rungs[list(_SHOWN)].to_string(index=False, float_format=lambda x: f"{x:.3g}")


class _Steps:
    """Steps of one training after the other, as one count."""

    def __init__(self, advance: Any) -> None:
        self._advance, self._before, self._last = advance, 0, 0

    def __call__(self, step: int, _total: int, _explained: Any) -> None:
        if step < self._last:
            self._before += self._last
        self._last = step
        self._advance(self._before + step)
