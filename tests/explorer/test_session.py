"""Readings, tracks, edits, saturation, interventions and contrasts, each beside its slow plain twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from explorer_toys import UTR, random_record
from scipy import stats

from helix_sae.errors import DataError
from helix_sae.explorer import (
    CalibratedReadOut,
    Feature,
    Session,
    Setting,
    activations_along,
    concept_tracks,
    contrast,
    edit,
    intervene,
    make_record,
    saturation,
    strongest,
)
from helix_sae.explorer.interventions import alike_features
from helix_sae.mrna.annotations import annotate
from helix_sae.mrna.tokens import tokenize
from helix_sae.sae.fit import share_outside
from helix_sae.statistics.multiple_testing import adjust

RECORD = make_record(UTR, cds_start=24)


def plain_codes(session: Session, record, site: str) -> np.ndarray:
    """A whole pass, an autoencoder, the rows of nucleotides."""
    tokens = tokenize(record.sequence, record.cds_start, record.cds_end)
    x = session.model.capture(torch.from_numpy(tokens.ids)[None], [site])[site][0]
    return session.dictionaries[site].encode(x).detach().numpy()[tokens.is_nucleotide]


def plain_values(session: Session, record) -> dict[str, float]:
    embedding = session.model.embed([tokenize(record.sequence, record.cds_start, record.cds_end)])
    return {name: float(one.probe.predict(embedding)[0]) for name, one in session.read_outs.items()}


def test_a_reading_is_a_whole_pass(session: Session) -> None:
    reading = session.read(RECORD)
    for site in session.sites:
        np.testing.assert_allclose(
            reading.on_letters(site), plain_codes(session, RECORD, site), rtol=1e-4, atol=1e-4
        )
    assert session.values(reading) == pytest.approx(plain_values(session, RECORD), abs=1e-4)
    for site, fit in session.fit(reading).items():
        kept = reading.activations[site][torch.from_numpy(reading.tokens.is_nucleotide)]
        assert fit.outside == pytest.approx(share_outside(session.dictionaries[site], [kept]))


def test_the_strongest_features_are_measured_by_what_is_usual_for_each(session: Session) -> None:
    reading = session.read(RECORD)
    every = activations_along(session, reading, list(session.by_name.values()))
    expected = sorted((t.strength for t in every), reverse=True)[:5]
    assert [t.strength for t in strongest(session, reading, 5)] == pytest.approx(expected)


def test_concepts_are_those_of_the_annotations(session: Session) -> None:
    found = concept_tracks(RECORD)
    for name, mask in annotate(RECORD.sequence, RECORD.cds_start, RECORD.cds_end).items():
        covered = np.zeros(len(RECORD.sequence), dtype=bool)
        for span in found.get(name, []):
            covered[span.start : span.end] = True
        np.testing.assert_array_equal(covered, mask, err_msg=name)
    assert "start_codon" in found


def test_saturation_is_a_pass_for_each_substitution(session: Session) -> None:
    feature = strongest(session, session.read(RECORD), 1)[0].feature
    found = saturation(session, RECORD, feature=feature, first=3, last=30)
    base = plain_values(session, RECORD)
    mean = plain_codes(session, RECORD, feature.site)[:, feature.number].mean()
    assert found.feature is not None
    for position in range(3, 30, 5):
        for i, letter in enumerate("ACGU"):
            changed = RECORD.sequence[:position] + letter + RECORD.sequence[position + 1 :]
            other = RECORD._replace(sequence=changed)
            for name, value in plain_values(session, other).items():
                assert found.read_outs[name][i, position - 3] == pytest.approx(value - base[name], abs=2e-4)
            now = plain_codes(session, other, feature.site)[:, feature.number].mean()
            assert found.feature[i, position - 3] == pytest.approx(now - mean, abs=2e-4)


def test_an_edit_is_two_readings_laid_beside_each_other(session: Session) -> None:
    after = make_record(UTR[:10] + UTR[14:], cds_start=20)
    found = edit(session, RECORD, after, n=4)
    assert found.aligned.shape[1] == len(after.sequence)
    top = found.moved[0]
    np.testing.assert_allclose(
        top.after, plain_codes(session, after, top.feature.site)[:, top.feature.number], atol=1e-4
    )
    assert top.change == pytest.approx(top.after.mean() - top.before.mean())
    assert [m.largest for m in found.moved] == sorted((m.largest for m in found.moved), reverse=True)
    assert edit(session, RECORD, RECORD).moved == []


def plain_intervention(session: Session, record, feature: Feature, target, direction) -> dict[str, float]:
    """A whole pass in which the activation at the site is changed, nucleotide by nucleotide."""
    tokens = tokenize(record.sequence, record.cds_start, record.cds_end)
    sae = session.dictionaries[feature.site]

    def change(x):
        out = x.clone()
        for row in np.flatnonzero(tokens.is_nucleotide):
            code = sae.encode(x[0, row][None])[0, feature.number]
            wanted = target[tokens.nucleotide[row]]
            if not np.isnan(wanted):
                out[0, row] += (wanted - code) * direction
        return out

    ids, is_nucleotide = session.model.tensors([tokens])
    with torch.no_grad():
        hidden = session.model.run(ids, {feature.site: change})
        embedding = session.model.pool(hidden, is_nucleotide).numpy()
    return {name: float(one.probe.predict(embedding)[0]) for name, one in session.read_outs.items()}


def test_setting_a_feature_is_an_edited_pass(session: Session) -> None:
    feature = strongest(session, session.read(RECORD), 1)[0].feature
    other = random_record(np.random.default_rng(5), len(UTR))
    of_other = plain_codes(session, other, feature.site)[:, feature.number]
    partly = np.full(len(UTR), np.nan)
    partly[4:20] = 1.5
    direction = session.dictionaries[feature.site].directions[feature.number].detach()
    for setting, target in (
        (Setting("zero"), np.zeros(len(UTR))),
        (Setting("value", 1.5, first=4, last=20), partly),
        (Setting("sequence", source=other), of_other),
    ):
        found = intervene(session, RECORD, feature, setting, n_random=2, n_features=2)
        expected = plain_intervention(session, RECORD, feature, target, direction)
        assert found.after == pytest.approx(expected, abs=2e-4)
        assert found.before == pytest.approx(plain_values(session, RECORD), abs=1e-4)


def test_nulls_make_the_same_change_in_other_directions(session: Session) -> None:
    feature = strongest(session, session.read(RECORD), 1)[0].feature
    found = intervene(session, RECORD, feature, Setting("zero"), n_random=9, n_features=3, seed=4)
    assert found.alike is not None
    assert found.random is not None
    density = session.reference.density[feature.site]
    distance = np.abs(np.log(density[density > 0]) - np.log(max(density[feature.number], 1e-6)))
    for other in found.alike.features:
        assert (
            abs(np.log(density[other.number]) - np.log(max(density[feature.number], 1e-6)))
            <= sorted(distance)[3] + 1e-12
        )
    assert found.alike.features == alike_features(session, feature, 3)
    weights = session.dictionaries[feature.site].directions.detach()
    own = weights[feature.number].norm()
    drawn = torch.from_numpy(np.random.default_rng(4).standard_normal((9, weights.shape[1]))).to(weights)
    for null, directions in (
        (found.random, drawn),
        (found.alike, weights[[f.number for f in found.alike.features]]),
    ):
        for i in (0, len(directions) - 1):
            expected = plain_intervention(
                session, RECORD, feature, np.zeros(len(UTR)), directions[i] / directions[i].norm() * own
            )
            for name, y in expected.items():
                assert null.effects[name][i] == pytest.approx(y - found.before[name], abs=2e-4)
    name = next(iter(session.read_outs))
    change = found.after[name] - found.before[name]
    reached = sum(abs(e) >= abs(change) for e in found.random.effects[name])
    assert found.random.p_value(name, change) == pytest.approx((1 + reached) / 10)


def test_a_silent_feature_set_to_zero_changes_nothing(session: Session) -> None:
    reading = session.read(RECORD)
    silent = next(f for f in session.by_name.values() if not reading.codes[f.site][:, f.number].any())
    found = intervene(session, RECORD, silent, Setting("zero"))
    assert found.after == found.before
    assert (found.random, found.alike) == (None, None)


def test_a_contrast_is_a_rank_sum_test_of_each_feature(session: Session) -> None:
    rng = np.random.default_rng(8)
    here = [random_record(rng, 40 + i) for i in range(5)]
    there = [make_record("".join(rng.choice(list("GC"), 40 + i)), cds_start=15) for i in range(6)]
    found = contrast(session, here, there)
    assert found.exact
    row = found.table.iloc[len(found.table) // 3]
    values = [plain_codes(session, r, row["site"])[:, row["feature"]].mean() for r in [*here, *there]]
    twin = stats.permutation_test(
        (np.array(values[:5]), np.array(values[5:])),
        lambda a, b: abs(stats.rankdata(np.concatenate([a, b]))[: len(a)].sum() - 5 * 6),
        alternative="greater",
        n_resamples=np.inf,
    )
    assert row["p_value"] == pytest.approx(twin.pvalue)
    pairs = np.sign(np.subtract.outer(values[:5], values[5:]))
    assert row["effect"] == pytest.approx(pairs.mean())
    np.testing.assert_allclose(found.table["q_value"], adjust(found.table["p_value"]))
    with pytest.raises(DataError, match="both sets"):
        contrast(session, here, [*here[:1], *there])
    with pytest.raises(DataError, match="at least 3"):
        contrast(session, here, there[:2])


def test_an_interval_holds_as_many_as_it_says(session: Session) -> None:
    _, plain = session.read_out()
    assert plain.interval(0.0) is None
    rng = np.random.default_rng(0)
    held = CalibratedReadOut(plain.probe, rng.standard_normal(399))
    found = held.interval(2.0)
    assert found is not None
    low, high = found
    fresh = rng.standard_normal(20_000)
    assert 0.93 < np.mean((fresh > low - 2) & (fresh < high - 2)) < 0.97
    inside = (held.errors > low - 2) & (held.errors < high - 2)
    assert 0.93 < inside.mean() < 0.96


def test_names_that_are_not_there_are_told_with_those_that_are(session: Session) -> None:
    with pytest.raises(DataError, match=r"no feature 'L9.mixer.0'; names are like L0.mixer.0"):
        session.feature("L9.mixer.0")
    with pytest.raises(DataError, match="there is functional_mrl"):
        session.read_out("x")
