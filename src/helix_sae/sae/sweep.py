"""Choosing the settings of a dictionary by evidence: many are tried from several seeds each, and a rule picks one.

One set of settings that is tried is a *rung*. All rungs of one length are trained in one pass over the
activations, those of one shape side by side (:mod:`helix_sae.sae.stack`), and measured on tokens that none
was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from helix_sae.errors import AnalysisError, ConfigurationError
from helix_sae.sae.config import SaeConfig, parse_sae_config
from helix_sae.sae.learner import SaeKey
from helix_sae.sae.orders import Batches, SiteBatch
from helix_sae.sae.stability import match_of_seeds
from helix_sae.sae.training import TrainingResult, train_saes

_SPARSITY = ("k", "l1_coefficient", "l0_coefficient")
"""The setting by which an architecture is made sparser."""

_LISTS = ("prefix_shares",)
"""Settings that are lists themselves."""


class Rung(NamedTuple):
    """One set of settings that is tried: its name, the configuration, and the steps of its training."""

    name: str
    config: SaeConfig
    n_steps: int


def rungs_of(grids: Mapping[str, Mapping[str, Any]], n_steps: int) -> list[Rung]:
    """Every combination of the values of each grid.

    Parameters
    ----------
    grids : mapping of name to mapping
        Settings of an architecture, and ``n_steps``; a list is tried value by value.
    n_steps : int
        Of a grid that does not say.

    Raises
    ------
    ConfigurationError
        Naming the grid whose settings are none.

    Examples
    --------
    >>> grids = {"topk": {"architecture": "topk", "k": [4, 8], "n_steps": [100, 200]}}
    >>> [(rung.name, rung.config.k, rung.n_steps) for rung in rungs_of(grids, 1000)]
    [('topk 1', 4, 100), ('topk 2', 4, 200), ('topk 3', 8, 100), ('topk 4', 8, 200)]
    """
    rungs: list[Rung] = []
    for name, grid in grids.items():
        tried = [key for key, value in grid.items() if isinstance(value, list) and key not in _LISTS]
        combinations = list(product(*(grid[key] for key in tried)))
        if not combinations:
            raise ConfigurationError(f"The grid {name} has an empty list; give at least one value.")
        for number, values in enumerate(combinations, start=1):
            settings = {**grid, **dict(zip(tried, values, strict=True))}
            steps = settings.pop("n_steps", n_steps)
            if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
                raise ConfigurationError(f"The grid {name} asks for {steps!r} steps; give a whole number.")
            try:
                config = parse_sae_config(settings)
            except ConfigurationError as error:
                raise ConfigurationError(f"The grid {name}: {error}") from error
            rungs.append(Rung(name if len(combinations) == 1 else f"{name} {number}", config, steps))
    return rungs


def train_sweep(
    orders: Callable[[int], Batches],
    rungs: Sequence[Rung],
    holdout: Iterable[SiteBatch],
    *,
    n_seeds: int,
    **options: Any,
) -> pd.DataFrame:
    """Train every rung at every site from several seeds, and measure what the seeds have in common.

    Parameters
    ----------
    orders : function of a seed
        Gives the batches in its order, enough of them for the longest rung.
    rungs : sequence of Rung
    holdout : iterable of mapping of site to float (batch, d_in)
        Batches that nothing is trained on.
    n_seeds : int
        Starts and orders of the data a rung; stability needs two.
    **options
        Of :func:`~helix_sae.sae.train_saes`: ``sites``, ``seed``, ``device`` and others.

    Returns
    -------
    DataFrame
        A row a rung and site: ``rung, site, architecture, d_sae, sparsity, learning_rate, n_steps,
        n_seeds``; means over the seeds of ``explained_variance, l0, n_features`` (living ones) and
        ``start_cosine``; ``pw_mcc, pw_mcc_lowest`` (matched cosine of the living features, over pairs of
        seeds; NaN where a seed has none), ``chance_cosine``; ``settings`` as JSON.
    """
    held_out = list(holdout)
    rows: list[dict[str, Any]] = []
    for n_steps in dict.fromkeys(rung.n_steps for rung in rungs):
        alike = [rung for rung in rungs if rung.n_steps == n_steps]
        configs = {rung.name: rung.config for rung in alike}
        result = train_saes(orders, configs, n_seeds=n_seeds, n_steps=n_steps, holdout=held_out, **options)
        metrics = result.metrics.set_index(["config", "site"])
        rows += [
            _row(rung, site, n_seeds, result, metrics.loc[[(rung.name, site)]])
            for rung in alike
            for site in result.scalings
        ]
    order = {rung.name: number for number, rung in enumerate(rungs)}
    table = pd.DataFrame(rows)
    return table.sort_values("rung", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def _row(
    rung: Rung, site: str, n_seeds: int, result: TrainingResult, metrics: pd.DataFrame
) -> dict[str, Any]:
    """What the seeds of one rung are like at one site; ``metrics`` has a row a seed."""
    living: list[np.ndarray] = []
    for seed in range(n_seeds):
        key = SaeKey(site, rung.name, seed)
        alive = result.evaluations[key].features["alive"].to_numpy(dtype=bool)
        living.append(result.saes[key].W_dec.detach().numpy()[alive])
    sae = result.saes[SaeKey(site, rung.name)]
    sparsity = next((name for name in _SPARSITY if hasattr(rung.config, name)), None)
    means = metrics[["explained_variance", "l0", "start_cosine", "chance_cosine"]].mean()
    return {
        "rung": rung.name,
        "site": site,
        "architecture": rung.config.architecture,
        "d_sae": sae.d_sae,
        "sparsity": "" if sparsity is None else f"{sparsity} {getattr(rung.config, sparsity):g}",
        "learning_rate": rung.config.resolve(sae.d_in).peak_rate,
        "n_steps": rung.n_steps,
        "n_seeds": n_seeds,
        "explained_variance": means["explained_variance"],
        "l0": means["l0"],
        "n_features": float(np.mean([len(rows) for rows in living])),
        **match_of_seeds(living),
        "chance_cosine": means["chance_cosine"],
        "start_cosine": means["start_cosine"],
        "settings": json.dumps(rung.config.model_dump(mode="json", exclude_unset=True)),
    }


def over_sites(sweep: pd.DataFrame) -> pd.DataFrame:
    """A row a rung of :func:`train_sweep`: the settings, and its measures over all sites.

    Returns
    -------
    DataFrame
        The columns of the sweep that a rung has once; ``lowest_explained_variance`` (of a site; NaN if one
        is) and ``lowest_at``, the site; means over the sites of ``explained_variance, l0, n_features,
        pw_mcc, chance_cosine, start_cosine``, and ``pw_mcc_lowest``, of a pair of seeds at any site.
    """
    rows: list[dict[str, Any]] = []
    once = ["rung", "architecture", "sparsity", "n_steps", "n_seeds", "settings"]
    means = ["explained_variance", "l0", "n_features", "pw_mcc", "chance_cosine", "start_cosine"]
    for _, sites in sweep.groupby("rung", sort=False):
        explained = sites["explained_variance"].to_numpy(dtype=float)
        rows.append(
            {
                **sites.iloc[0][once].to_dict(),
                "learning_rate": float(sites["learning_rate"].mean()),
                "d_sae": float(sites["d_sae"].mean()),
                "lowest_explained_variance": float(explained.min()),
                "lowest_at": sites["site"].iloc[int(np.argmin(explained))],
                **{name: float(sites[name].mean(skipna=False)) for name in means},
                "pw_mcc_lowest": float(sites["pw_mcc_lowest"].min(skipna=False)),
            }
        )
    return pd.DataFrame(rows)


class Pick(NamedTuple):
    """The rung that the rule picked: its row of :func:`over_sites`, and the rule and what it chose among in words."""

    row: pd.Series
    reason: str


def pick_rung(sweep: pd.DataFrame, min_explained_variance: float, as_sparse: float) -> Pick:
    """Pick the fewest active features that explain enough, and among as few the most stable.

    Parameters
    ----------
    sweep : DataFrame
        Of :func:`train_sweep`.
    min_explained_variance : float
        Held-out explained variance that a rung needs at every site.
    as_sparse : float
        Rungs with at most this share more active features than the sparsest (mean over the sites) count as
        as sparse; of these the one with the highest ``pw_mcc`` is taken.

    Raises
    ------
    AnalysisError
        If no rung explains enough, naming the one that explains most; or none of those has features that
        can be compared.
    """
    rungs = over_sites(sweep)
    enough = rungs[rungs["lowest_explained_variance"] >= min_explained_variance]
    if enough.empty:
        raise AnalysisError(_without_winner(rungs, min_explained_variance))
    comparable = enough[enough["pw_mcc"].notna()]
    if comparable.empty:
        raise AnalysisError(
            f"{len(enough)} of {len(rungs)} rungs explain enough, but of none it is known whether other seeds"
            " find the same: a seed has no living feature, or one seed was trained. Set sae_sweep.n_seeds to"
            " 2 or more."
        )
    fewest = float(comparable["l0"].min())
    sparse = comparable[comparable["l0"] <= (1 + as_sparse) * fewest]
    row = sparse.loc[sparse["pw_mcc"].idxmax()]
    return Pick(
        row,
        f"{len(enough)} of {len(rungs)} rungs explain at least {min_explained_variance:g} of the variance at"
        f" every site. The sparsest of them has {fewest:.2f} active features a token; {len(sparse)} have at"
        f" most {100 * as_sparse:g} % more, and of these {row['rung']} is the most stable: a matched cosine"
        f" of {row['pw_mcc']:.3f} with {row['l0']:.2f} active features.",
    )


def _without_winner(rungs: pd.DataFrame, wanted: float) -> str:
    known = rungs[rungs["lowest_explained_variance"].notna()]
    if known.empty:
        return (
            f"No rung of the {len(rungs)} explains anything of a site whose activations are all the same;"
            " leave that site out (extraction.sites)."
        )
    best = known.loc[known["lowest_explained_variance"].idxmax()]
    return (
        f"None of the {len(rungs)} rungs explains at least {wanted:g} of the variance at every site. The best"
        f" is {best['rung']} ({best['settings']}, {best['n_steps']} steps): it explains"
        f" {best['lowest_explained_variance']:.3f} at {best['lowest_at']}, with {best['l0']:.2f} active"
        f" features a token and a matched cosine of {best['pw_mcc']:.3f} over the sites. Add rungs with a"
        " lower price, more active features, more features or more steps to sae_sweep.grids, or lower"
        " sae_sweep.rule.min_explained_variance."
    )
