"""How much one may ask for, and how often."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from helix_sae.errors import HelixSaeError
from helix_sae.explorer.records import Record


class TooMuchError(HelixSaeError):
    """A request asks for more than is answered here."""


class TooOftenError(HelixSaeError):
    """One address asks too often, or too many wait already."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one request and of one address.

    Attributes
    ----------
    body : int
        Bytes of a request.
    length : int
        Nucleotides of one sequence.
    sequences : int
        Sequences of a request.
    letters : int
        Nucleotides of a request, over all sequences.
    passed_on : int
        Nucleotides of a sequence that is intervened on: it is run over 200 times.
    substituted : int
        Positions of a saturation map times the nucleotides behind the first of them.
    tracks : int
        Features drawn along a sequence.
    waiting : int
        Requests that may wait for their turn.
    per_minute : float
        Requests of one address, after a first ``burst``.
    burst : int
    """

    body: int = 1_000_000
    length: int = 4_000
    sequences: int = 200
    letters: int = 60_000
    passed_on: int = 1_000
    substituted: int = 60_000
    tracks: int = 512
    waiting: int = 256
    per_minute: float = 600.0
    burst: int = 120

    def check(self, *records: Record) -> None:
        """Make sure that these sequences are not too many and not too long.

        Raises
        ------
        TooMuchError
            Naming what is too much, and the limit.
        """
        if len(records) > self.sequences:
            raise TooMuchError(
                f"{len(records)} sequences are too many for one request; give at most {self.sequences}."
            )
        longest = max(records, key=lambda one: len(one.sequence))
        if len(longest.sequence) > self.length:
            raise TooMuchError(
                f"{longest.name}: {len(longest.sequence):,} nt are too long here; at most {self.length:,} are"
                " read. `helix-sae apply` takes longer ones."
            )
        total = sum(len(one.sequence) for one in records)
        if total > self.letters:
            raise TooMuchError(
                f"{total:,} nt are too many for one request; give at most {self.letters:,}."
                " `helix-sae apply` takes any number."
            )

    def check_saturation(self, record: Record, first: int, last: int | None) -> None:
        """Make sure that a saturation map is not too large.

        Raises
        ------
        TooMuchError
        """
        n = len(record.sequence)
        if ((n if last is None else last) - first) * (n - first) > self.substituted:
            raise TooMuchError(
                "So many substitutions take too long here: positions times the nucleotides behind the first"
                f" of them are at most {self.substituted:,}. Give fewer positions."
            )

    def check_intervention(self, record: Record) -> None:
        """Make sure that a sequence is not too long to be run over hundreds of times.

        Raises
        ------
        TooMuchError
        """
        if len(record.sequence) > self.passed_on:
            raise TooMuchError(
                f"{len(record.sequence):,} nt are too long to intervene on here; at most {self.passed_on:,}"
                " are taken, as each null is a pass of its own."
            )


class RateLimiter:
    """So many requests a minute for each address, after a first burst.

    Parameters
    ----------
    per_minute : float
    burst : int
    clock : callable
        Seconds.
    """

    _REMEMBERED = 10_000

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_minute / 60, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, address: str) -> float:
        """Count a request; seconds to wait where it comes too early, 0 where it may go on."""
        now = self._clock()
        left, before = self._left.pop(address, (float(self._burst), now))
        left = min(float(self._burst), left + (now - before) * self._per_second)
        wait = 0.0 if left >= 1 else (1 - left) / self._per_second
        self._left[address] = (left if wait else left - 1, now)
        while len(self._left) > self._REMEMBERED:
            self._left.popitem(last=False)
        return wait
