"""From the library's results to the answers of the API."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from helix_sae.explorer import schemas
from helix_sae.explorer.contrast import Contrast
from helix_sae.explorer.edits import LETTERS, EditOutcome, Saturation
from helix_sae.explorer.interventions import Intervention, Null
from helix_sae.explorer.records import Record
from helix_sae.explorer.session import Feature, Reading, Session
from helix_sae.explorer.tracks import Span, Track

_DECIMALS = 6


def of_record(record: Record) -> schemas.RecordAnswer:
    """A sequence as it was read."""
    return schemas.RecordAnswer(**record._asdict())


def of_reading(
    session: Session, reading: Reading, concepts: dict[str, list[Span]], tracks: list[Track]
) -> schemas.ReadAnswer:
    """A sequence with all that stands under it."""
    return schemas.ReadAnswer(
        record=of_record(reading.record),
        read_outs=[_read_out(session, name, value) for name, value in session.values(reading).items()],
        fit=[
            schemas.FitAnswer(site=site, outside=known(fit.outside), error=fit.error, limit=known(fit.limit))
            for site, fit in session.fit(reading).items()
        ],
        usual_lengths=session.reference.lengths,
        concepts={name: [(span.start, span.end) for span in spans] for name, spans in concepts.items()},
        tracks=[
            schemas.TrackAnswer(
                name=track.feature.name,
                site=track.feature.site,
                feature=track.feature.number,
                usual=track.usual,
                values=numbers(track.values),
            )
            for track in tracks
        ],
    )


def of_edit(session: Session, outcome: EditOutcome) -> schemas.EditAnswer:
    """What an edit does."""
    before, after = session.values(outcome.before), session.values(outcome.after)
    return schemas.EditAnswer(
        before=of_record(outcome.before.record),
        after=of_record(outcome.after.record),
        aligned=[(int(i), int(j)) for i, j in outcome.aligned.T],
        read_outs=[
            schemas.ChangeAnswer(name=name, before=before[name], after=after[name]) for name in before
        ],
        moved=[
            schemas.MovedAnswer(
                name=one.feature.name,
                usual=usual_of(session, one.feature),
                change=one.change,
                largest=one.largest,
                before=numbers(one.before),
                after=numbers(one.after),
            )
            for one in outcome.moved
        ],
    )


def of_saturation(record: Record, found: Saturation) -> schemas.SaturationAnswer:
    """A saturation map."""
    return schemas.SaturationAnswer(
        record=of_record(record),
        first=found.first,
        letters=list(LETTERS),
        read_outs={name: [numbers(row) for row in effect] for name, effect in found.read_outs.items()},
        feature=None if found.feature is None else [numbers(row) for row in found.feature],
    )


def of_intervention(record: Record, feature: Feature, found: Intervention) -> schemas.InterventionAnswer:
    """What setting a feature does."""
    return schemas.InterventionAnswer(
        record=of_record(record),
        feature=feature.name,
        effects=[
            schemas.EffectAnswer(
                name=name,
                before=before,
                after=found.after[name],
                random=_null(found.random, name, found.after[name] - before),
                alike=_null(found.alike, name, found.after[name] - before),
            )
            for name, before in found.before.items()
        ],
        before=numbers(found.codes_before),
        after=numbers(found.codes_after),
        magnitude=found.magnitude,
        moved=[schemas.MoveAnswer(name=one.name, change=change) for one, change in found.moved],
    )


def of_contrast(found: Contrast, n_here: int, n_there: int, most: int) -> schemas.ContrastAnswer:
    """Features between two sets."""
    rows = found.table.head(most).astype(object)
    return schemas.ContrastAnswer(
        # A test that could not be made has no p-value: null, where JSON knows no NaN.
        rows=[schemas.ContrastRow(**row) for row in rows.where(rows.notna(), None).to_dict("records")],
        n_tested=len(found.table),
        n_here=n_here,
        n_there=n_there,
        exact=found.exact,
    )


def of_features(session: Session) -> schemas.FeaturesAnswer:
    """Every feature, with what the run and the autoencoders say of it."""
    told: dict[str, dict[str, Any]] = {}
    if "name" in session.about:
        told = {str(row["name"]): row for row in session.about.to_dict("records")}
    found: list[schemas.FeatureAnswer] = []
    for site in session.sites:
        stability = session.dictionaries[site].stability
        by_seed = {} if stability is None else stability.set_index("feature").to_dict("index")
        for number in range(session.dictionaries[site].d_sae):
            feature = Feature(site, number)
            row = {**by_seed.get(number, {}), **told.get(feature.name, {})}
            found.append(_feature(session, feature, row, feature.name in told))
    return schemas.FeaturesAnswer(features=found)


def usual_of(session: Session, feature: Feature) -> float:
    """The largest activation of a feature on sequences of the training."""
    return float(session.reference.highest[feature.site][feature.number])


def numbers(values: np.ndarray) -> list[float]:
    """Numbers in few digits."""
    return np.round(values.astype(np.float64), _DECIMALS).tolist()


def known(value: Any) -> float | None:
    """A number, or None where it is missing or not finite."""
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _read_out(session: Session, name: str, value: float) -> schemas.ReadOutAnswer:
    read_out = session.read_outs[name]
    low, high = read_out.interval(value) or (None, None)
    tried_low, tried_high = read_out.tried or (None, None)
    return schemas.ReadOutAnswer(
        name=name,
        value=value,
        unit="log odds" if read_out.probe.is_classifier else "value",
        low=low,
        high=high,
        tried_low=tried_low,
        tried_high=tried_high,
    )


def _null(null: Null | None, read_out: str, effect: float) -> schemas.NullAnswer | None:
    if null is None:
        return None
    return schemas.NullAnswer(
        effects=numbers(null.effects[read_out]),
        p_value=null.p_value(read_out, effect),
        features=[feature.name for feature in null.features],
    )


def _feature(
    session: Session, feature: Feature, row: dict[str, Any], has_card: bool
) -> schemas.FeatureAnswer:
    return schemas.FeatureAnswer(
        name=feature.name,
        card=has_card,
        site=feature.site,
        feature=feature.number,
        density=float(session.reference.density[feature.site][feature.number]),
        usual=usual_of(session, feature),
        stability=known(row.get("stability")),
        certified=_text(row.get("certified")),
        best_concept=_text(row.get("best_concept")),
        best_property=_text(row.get("best_property")),
        effect=known(row.get("effect")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
