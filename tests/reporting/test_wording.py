"""Numbers in words: what is written can be read back, and nothing reads larger, surer or of another sign than it is."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from helix_sae.reporting import wording
from helix_sae.reporting.wording import MISSING

FINITE = st.floats(-1e300, 1e300, width=64)
USUAL = st.floats(-1e9, 1e9)
_PLAIN = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def read(text: str) -> float:
    """The number that a reader sees."""
    mantissa, _, exponent = text.replace("−", "-").replace(",", "").removesuffix(" %").partition("×10")
    return float(mantissa.removeprefix("+") + ("e" + exponent.translate(_PLAIN) if exponent else ""))


@given(FINITE, st.integers(1, 6))
def test_a_number_reads_back_to_its_digits(value: float, digits: int):
    assume(value == 0 or abs(value) > 1e-305)
    text = wording.number(value, digits)
    assert read(text) == pytest.approx(value, rel=0.5000001 * 10.0 ** (1 - digits), abs=0)
    assert not re.search(r"[eE]|nan|inf|-", text)


@given(st.floats(1e-3, 999_999, allow_nan=False), st.integers(1, 5))
def test_common_sizes_have_no_exponent(value: float, digits: int):
    assert "×" not in wording.number(value, digits)
    assert "×" not in wording.number(-value, digits)


@given(st.integers(-(10**6), 10**6))
def test_whole_numbers_keep_their_digits(value: int):
    assert read(wording.number(value)) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (0, "0"),
        (-0.0, "0"),
        (0.12345, "0.123"),
        (0.9996, "1.00"),
        (999.6, "1,000"),
        (12345.6, "12,346"),
        (-2.5, "−2.50"),
        (1.234e-9, "1.23×10⁻⁹"),
        (9.999e-4, "0.00100"),
        (2e12, "2.00×10¹²"),
    ],
)
def test_numbers(value: float | None, expected: str):
    assert wording.number(value) == expected


@given(USUAL, st.integers(0, 6))
def test_fixed_and_signed(value: float, decimals: int):
    text, with_sign = wording.fixed(value, decimals), wording.signed(value, decimals)
    assert read(text) == read(with_sign) == pytest.approx(value, abs=0.5000001 * 10.0**-decimals)
    if read(text) == 0:
        assert "−" not in text + with_sign
    else:
        assert with_sign[0] == ("+" if value > 0 else "−")


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_there_is_a_dash(value: float | None):
    assert {wording.fixed(value), wording.signed(value), wording.percent(value)} == {MISSING}
    assert wording.interval(value, 1.0) == wording.interval(0.0, value) == MISSING


def test_nothing_that_rounds_to_zero_has_a_sign():
    assert wording.signed(0.001) == wording.signed(-0.001) == wording.signed(0.0) == "0.00"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.05, "0.05"), (0.1, "0.1"), (1e-3, "0.001"), (2.0, "2"), (1e-6, "1×10⁻⁶"), (-0.5, "−0.5")],
)
def test_settings_are_written_as_they_were_set(value: float, expected: str):
    assert wording.setting(value) == expected


@given(st.floats(0, 1))
def test_percent(share: float):
    text = wording.percent(share)
    assert text.endswith(" %")
    assert read(text) == pytest.approx(100 * share, abs=0.5 + 1e-9)
    assert (read(text) == 0) == (share == 0)


def test_a_small_share_is_not_none():
    assert wording.percent(0.0) == "0 %"
    assert wording.percent(0.0012) == "0.1 %"
    assert wording.percent(-0.0012) == "−0.1 %"
    assert wording.percent(0.12345, 1) == "12.3 %"
    assert wording.percent(12.5) == "1,250 %"


@given(st.floats(0, 1))
def test_probabilities_are_never_zero(p: float):
    text = wording.probability(p)
    if p < 1e-300:
        assert text == "< 10⁻³⁰⁰"
    else:
        assert read(text) > 0
        assert read(text) == pytest.approx(p, rel=0.51 if p < 1e-3 else 0.051)
    assert wording.p_value(p) == (f"p {text}" if text.startswith("<") else f"p = {text}")


def test_probabilities_without_a_value():
    assert wording.probability(None) == wording.probability(math.nan) == MISSING
    assert wording.p_value(math.nan) == "p not defined"
    assert wording.p_value(3e-9, "q") == "q = 3×10⁻⁹"


@given(USUAL, USUAL)
def test_an_interval_holds_its_ends(low: float, high: float):
    assert [read(part) for part in wording.interval(low, high, 3)[1:-1].split(", ")] == pytest.approx(
        [low, high], abs=0.00051
    )


@given(st.lists(st.one_of(st.none(), st.floats(-1e5, 1e5), st.just(math.nan)), max_size=8), st.integers(1, 5))
def test_decimals_show_the_digits_of_the_largest(values: list[float | None], digits: int):
    decimals = wording.decimals_for(values, digits)
    assert 2 <= decimals <= 8
    known = [abs(v) for v in values if v is not None and math.isfinite(v) and v != 0]
    if known and 10 ** (digits - 9) < max(known):
        assert max(known) * 10**decimals >= 10 ** (digits - 1) * 0.999


@given(st.integers(0, 10**7))
def test_counts(n: int):
    text = wording.count(n, "family", "families")
    assert text.split()[1] == ("family" if n == 1 else "families")
    assert int(text.split()[0].replace(",", "")) == n
    assert wording.count(n, "pair").endswith("pair" if n == 1 else "pairs")


@pytest.mark.parametrize(
    ("items", "expected"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_listings(items: list[str], expected: str):
    assert wording.listing(items) == expected


def test_a_title_names_what_went_in():
    assert wording.titled("Atlas", ["my_utrs"] * 3) == "Atlas: my_utrs"
    assert wording.titled("Atlas", ["a", "b", "a"]) == "Atlas: a and b"
    assert wording.titled("Atlas", "abcde") == "Atlas: a, b, c and 2 more"
    assert wording.titled("Atlas", []) == "Atlas"
