"""One feature in a notebook: what is known of it, and where it fires, drawn as in the atlas."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd

from helix_sae.errors import ConfigurationError
from helix_sae.figures.style import property_label
from helix_sae.left_out import left_out_of
from helix_sae.reporting.atlas import window_markup
from helix_sae.reporting.pages import environment, escaped
from helix_sae.reporting.windows import CodedCorpus, firings, top_firings, window
from helix_sae.reporting.wording import fixed, number, percent, signed, words
from helix_sae.sae.codes import nucleotide_of_tokens


class ShownFeature(NamedTuple):
    """A feature as Jupyter shows it.

    Attributes
    ----------
    name : str
    facts : list of str
        What is known of it, a sentence each.
    lines : list of str
        Markup of its strongest windows.
    texts : list of str
        The same as letters, for what draws no markup.
    """

    name: str
    facts: list[str]
    lines: list[str]
    texts: list[str]

    def _repr_html_(self) -> str:
        style = environment().get_template("sequence.css").render()
        said = " ".join(map(escaped, self.facts))
        drawn = "".join(f'<div class="seq">{line}</div>' for line in self.lines)
        return f"<style>{style}</style><p><b>{escaped(self.name)}</b>. {said}</p>{drawn}"

    def __repr__(self) -> str:
        return "\n".join([f"{self.name}. {' '.join(self.facts)}", *self.texts])


def show_feature(
    load: Callable[[str], Any], name: str, *, n_windows: int = 8, flank: int = 25
) -> ShownFeature:
    """What is known of a feature and where it fires strongest, each place in another family.

    Parameters
    ----------
    load : callable
        From the name of an entry to its content: ``catalog.load`` of Kedro's catalog.
    name : str
        Of the feature, as every table and page has it: ``L4.mixer.45``.
    n_windows : int
        Places that are shown.
    flank : int
        Nucleotides on either side of the activation.

    Raises
    ------
    ConfigurationError
        If no living feature is called so.

    Examples
    --------
    In a notebook, where ``catalog`` is Kedro's::

        show_feature(catalog.load, "L4.mixer.45")
    """
    known = load("features")
    missing = left_out_of(known)
    if missing is not None:
        raise ConfigurationError(f"There are no features to show: {missing.reason}")
    features = known.set_index("name")
    if name not in features.index:
        close = difflib.get_close_matches(name, list(map(str, features.index)), n=3)
        meant = f" Did you mean {', '.join(close)}?" if close else ""
        raise ConfigurationError(f"There is no living feature {name!r} among {len(features):,}.{meant}")
    row = features.loc[name]
    codes, table = load("sparse_codes")[str(row["site"])], load("mrna_table")
    of_codes = table.set_index("sequence_id", drop=False).loc[list(codes.sequence_id)].reset_index(drop=True)
    nucleotide = nucleotide_of_tokens(codes.is_nucleotide, codes.offsets)
    corpus = CodedCorpus(of_codes, codes.codes, codes.offsets, nucleotide, codes.is_nucleotide)
    (fired,) = firings(corpus, [int(row["feature"])])
    best = top_firings(fired, of_codes["cluster"].to_numpy(), n_windows)
    shown = [window(corpus, fired, int(i), flank) for i in best]
    most = float(fired.activation.max(initial=0.0))
    return ShownFeature(
        name,
        _facts(row),
        [str(window_markup(one, flank, most)) for one in shown],
        [" " * (flank - (one.position - one.start)) + one.letters for one in shown],
    )


def _facts(row: pd.Series) -> list[str]:
    """Sentences on a row of the table of features; what was not found out is passed over."""
    known = {str(key): value for key, value in row.items() if not pd.isna(value)}
    often, most = percent(known["density"], 1), number(known["max_activation"])
    facts = [f"Active at {often} of the nucleotides, up to {most}."]
    if "stability" in known:
        sure = {"yes": ", certified", "no": ", not certified"}.get(str(known.get("certified")), "")
        facts.append(f"Found again in {percent(known['stability'])} of the other seeds{sure}.")
    if "best_concept" in known:
        concept, f1 = words(known["best_concept"]), fixed(known["best_concept_f1"])
        facts.append(f"Best concept: {concept} (F1 {f1}).")
    if "best_property" in known:
        held = "" if bool(known.get("association_replicated")) else ", not replicated"
        effect = signed(known["association"])
        facts.append(f"Goes along with {property_label(str(known['best_property']))} ({effect}{held}).")
    if "effect" in known:
        sure = "confirmed" if bool(known.get("effect_confirmed")) else "not confirmed"
        facts.append(f"Effect on the prediction, towards the target: {signed(known['effect'])} ({sure}).")
    return facts
