"""Numbers as a reader wants to see them, in plain text with the proper signs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

MISSING = "–"
"""Stands where there is no number."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SMALLEST_P = 1e-300


def words(name: object) -> str:
    """A name of the tables as words."""
    return str(name).replace("_", " ")


def number(value: float | None, digits: int = 3) -> str:
    """Round to significant digits, without an exponent between 0.001 and a million.

    Parameters
    ----------
    value : float or None
        NaN and None give a dash.
    digits : int
        Significant digits; whole numbers keep all theirs.
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = int(f"{value:.{digits - 1}e}".split("e")[1])  # after rounding: 999.6 has four digits
    if size < -3 or size > 6:
        return scientific(value, digits - 1)
    return f"{value:,.{max(0, digits - 1 - size)}f}".replace("-", "−")


def fixed(value: float | None, decimals: int = 2) -> str:
    """Round to a number of decimals."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def signed(value: float | None, decimals: int = 2) -> str:
    """The same with a sign in front, unless it rounds to zero."""
    text = fixed(value, decimals)
    return f"+{text}" if value is not None and value > 0 and text.strip("0.,–") else text


def scientific(value: float, digits: int = 1) -> str:
    """A number such as 3.1×10⁻⁸."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa.replace('-', '−')}×10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def setting(value: float) -> str:
    """A number that somebody chose (a level, a threshold), as it was chosen: ``0.05``, not ``0.0500``."""
    text = f"{value:g}"
    return scientific(value, 0) if "e" in text else text.replace("-", "−")


def percent(value: float | None, decimals: int = 0) -> str:
    """A share as a percentage."""
    if value is None or not math.isfinite(value):
        return MISSING
    shown = fixed(100 * value, decimals)
    if float(shown.replace("−", "-").replace(",", "")) == 0 and value != 0:
        return number(100 * value, 1) + " %"
    return f"{shown} %"


def p_value(value: float | None, symbol: str = "p") -> str:
    """``p = 0.031`` or ``p = 2×10⁻⁸``."""
    if value is None or math.isnan(value):
        return f"{symbol} not defined"
    if value < _SMALLEST_P:
        return f"{symbol} < 10⁻³⁰⁰"
    return f"{symbol} = {probability(value)}"


def probability(value: float | None) -> str:
    """A p- or q-value without its name."""
    if value is None or math.isnan(value):
        return MISSING
    if value < _SMALLEST_P:
        return "< 10⁻³⁰⁰"
    return scientific(value, 0) if value < 1e-3 else number(value, 2)


def interval(low: float | None, high: float | None, decimals: int = 2) -> str:
    """``[0.10, 0.32]``, or a dash."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def decimals_for(values: Sequence[float | None], digits: int = 2) -> int:
    """Decimals with which the largest of some numbers shows this many significant digits (at least two decimals).

    A column of numbers is rounded alike, so that they can be compared by eye.
    """
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v != 0]
    if not sizes:
        return 2
    return min(8, max(2, digits - 1 - math.floor(math.log10(max(sizes)))))


def count(n: int, noun: str, plural: str | None = None) -> str:
    """``1 pair``, ``2,000 pairs``."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def listing(items: Sequence[str], conjunction: str = "and") -> str:
    """``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def titled(title: str, sources: Iterable[object], at_most: int = 3) -> str:
    """A page's title with the names of what went in: ``Feature atlas: my_utrs``.

    Parameters
    ----------
    title : str
    sources : iterable
        Sources of the sequences: names of their files, or what these say.
    at_most : int
        Names that are written out.
    """
    names = list(dict.fromkeys(map(str, sources)))
    if len(names) > at_most:
        names = [*names[:at_most], f"{len(names) - at_most:,} more"]
    return f"{title}: {listing(names)}" if names else title
