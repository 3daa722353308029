"""What is known of each living feature, a row a feature: the index of the atlas, and the ``var`` of the AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helix_sae.names import ERROR, feature_name
from helix_sae.reporting.document import truth

if TYPE_CHECKING:
    import anndata

_KEY = ["site", "feature"]
_OF_SAE = ("density", "max_activation", "mean_when_active")
_STABILITY = ("stability", "stability_low", "stability_high", "certified")


def feature_table(
    features: Mapping[str, pd.DataFrame],
    *,
    significant: pd.DataFrame | None = None,
    concepts: pd.DataFrame | None = None,
    effects: pd.DataFrame | None = None,
    circuit: pd.DataFrame | None = None,
    causes: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Bring together what each part found out about the features that are ever active.

    Parameters
    ----------
    features : mapping of site to DataFrame
        A row a feature in order (``var`` of :func:`helix_sae.sae.codes.sequence_anndata`).
    significant : DataFrame, optional
        ``site, feature, property, effect, q_value, validation_effect, replicated``.
    concepts : DataFrame, optional
        ``site, feature, concept, f1`` on held-out families.
    effects : DataFrame, optional
        ``site, feature, confirmed, discovery_oriented, validation_oriented, validation_low``,
        ``validation_high, q_value``.
    circuit : DataFrame, optional
        ``site, feature`` of the members of the circuit.
    causes : DataFrame, optional
        ``site, feature, kind, effect, confirmed`` (:func:`helix_sae.causal.causes.cause_matrix`).

    Returns
    -------
    DataFrame
        ``name, site, feature, density, max_activation, mean_when_active``, what is known of the stability,
        ``best_concept, best_concept_f1``;
        ``best_property, association, association_q, association_replicated`` (the strongest on held-out
        families, replicated ones first);
        ``effect`` towards the target on held-out pairs (on discovery pairs where it was not tested:
        ``effect_tested`` says which) with ``effect_low, effect_high, effect_q, effect_confirmed``;
        ``in_circuit``; ``causes``, the kinds of edit for which it is confirmed, strongest first. Missing
        where a part has nothing to say.
    """
    table = pd.concat([_living(site, var) for site, var in features.items()], ignore_index=True)
    for found in (_best_concept(concepts), _best_property(significant), _effect(effects), _causes(causes)):
        if found is not None:
            table = table.merge(found, on=_KEY, how="left", validate="one_to_one")
    if circuit is not None:
        members = set(zip(circuit["site"], circuit["feature"].astype(str), strict=True))
        table["in_circuit"] = [
            key in members for key in zip(table["site"], table["feature"].astype(str), strict=True)
        ]
    return table


def joined_anndata(codes: Mapping[str, anndata.AnnData], table: pd.DataFrame) -> anndata.AnnData:
    """The codes of all sites side by side, living features only, with :func:`feature_table` as ``var``.

    Parameters
    ----------
    codes : mapping of site to AnnData
        Of the same sequences in the same order.
    table : DataFrame
        Of these features.
    """
    import anndata  # noqa: PLC0415 - slow to import
    import scipy.sparse  # noqa: PLC0415

    # Sparse matrices, not arrays: scanpy's tests know only those.
    first = next(iter(codes.values()))
    columns = {site: part["feature"].to_numpy() for site, part in table.groupby("site", sort=False)}
    chosen = [(codes[str(site)], numbers) for site, numbers in columns.items()]
    var = table.set_index("name", drop=False).rename_axis(None)
    var = var.assign(**{name: _plain(var[name]) for name in var.columns if var[name].dtype == object})
    result = anndata.AnnData(
        X=scipy.sparse.csr_matrix(scipy.sparse.hstack([of.X[:, numbers] for of, numbers in chosen])),
        obs=first.obs.copy(),
        var=var,
        obsm={name: first.obsm[name] for name in first.obsm},
    )
    result.layers["max"] = scipy.sparse.csr_matrix(
        scipy.sparse.hstack([of.layers["max"][:, numbers] for of, numbers in chosen])
    )
    result.uns.update({key: value for key, value in first.uns.items() if key != "site"})
    return result


def best_rivals(baselines: pd.DataFrame | None) -> dict[str, tuple[str, float]]:
    """Kind and F1 of the best detector of each concept that is no feature of an autoencoder.

    Parameters
    ----------
    baselines : DataFrame or None
        ``concept, kind, f1``.
    """
    if baselines is None or baselines.empty:
        return {}
    others = baselines[baselines["kind"] != "sae"]
    best = others.sort_values("f1", ascending=False, kind="stable").drop_duplicates("concept")
    found = zip(best["kind"].astype(str), best["f1"].astype(float), strict=True)
    return dict(zip(best["concept"].astype(str), found, strict=True))


def _living(site: str, var: pd.DataFrame) -> pd.DataFrame:
    alive = var[truth(var["alive"])] if "alive" in var else var
    numbers = alive["feature"].astype("int64").to_numpy()
    kept = [name for name in (*_OF_SAE, *_STABILITY) if name in alive]
    names = [feature_name(site, number) for number in numbers]
    return pd.DataFrame({"name": names, "site": site, "feature": numbers}).assign(
        **{name: alive[name].to_numpy() for name in kept}
    )


def _best_concept(concepts: pd.DataFrame | None) -> pd.DataFrame | None:
    if concepts is None or concepts.empty:
        return None
    best = concepts.sort_values("f1", ascending=False, kind="stable").drop_duplicates(_KEY)
    return _of_features(best)[[*_KEY, "concept", "f1"]].rename(
        columns={"concept": "best_concept", "f1": "best_concept_f1"}
    )


def _best_property(significant: pd.DataFrame | None) -> pd.DataFrame | None:
    if significant is None or significant.empty:
        return None
    table = significant.assign(
        _replicated=truth(significant["replicated"]), _size=significant["validation_effect"].abs()
    )
    best = table.sort_values(["_replicated", "_size"], ascending=False, kind="stable").drop_duplicates(_KEY)
    best = best.assign(association=best["validation_effect"].fillna(best["effect"]))
    return _of_features(best)[[*_KEY, "property", "association", "q_value", "_replicated"]].rename(
        columns={
            "property": "best_property",
            "q_value": "association_q",
            "_replicated": "association_replicated",
        }
    )


def _effect(effects: pd.DataFrame | None) -> pd.DataFrame | None:
    if effects is None or effects.empty:
        return None
    table = _of_features(effects[effects["feature"].astype(str) != ERROR])
    tested = table["validation_oriented"].notna() & truth(table["selected"])
    side = [np.where(tested, table[f"validation_{name}"], table[f"discovery_{name}"]) for name in _SIDES]
    return table[_KEY].assign(
        effect=side[0],
        effect_low=side[1],
        effect_high=side[2],
        effect_tested=tested.to_numpy(),
        effect_q=table["q_value"].to_numpy(),
        effect_confirmed=truth(table["confirmed"]),
    )


def _causes(causes: pd.DataFrame | None) -> pd.DataFrame | None:
    if causes is None or causes.empty:
        return None
    confirmed = causes[truth(causes["confirmed"]) & (causes["feature"].astype(str) != ERROR)]
    if confirmed.empty:
        return None
    kinds = confirmed.sort_values("effect", key=np.abs, ascending=False, kind="stable")
    joined = _of_features(kinds).groupby(_KEY)["kind"].agg(", ".join)
    return joined.rename("causes").reset_index()


_SIDES = ("oriented", "low", "high")


def _of_features(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(feature=table["feature"].astype("int64"))


def _plain(column: pd.Series) -> Any:
    """A column that an h5ad file can keep: booleans where there are only such, else texts."""
    kinds = {type(value) for value in column.dropna()}
    if kinds <= {bool, np.bool_}:
        return column.eq(True).to_numpy(dtype=bool)
    return column.where(column.notna(), "").astype(str)
