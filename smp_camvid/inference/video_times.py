"""The times of a video's frames: exact fractions of a second, in order, none missing."""

from __future__ import annotations

import math
from fractions import Fraction

ASSUMED_RATE, HIGHEST_RATE = Fraction(25), 10_000


def likely_rate(average: Fraction | None, guess: Fraction | None) -> Fraction:
    """Frames per second: their average, or the usual rate beside it where times are rounded."""
    if average and guess and abs(average / guess - 1) < Fraction(1, 2000):
        average = guess
    rate = average or guess or ASSUMED_RATE
    return rate if 0 < rate < HIGHEST_RATE else ASSUMED_RATE


class Clock:
    """Places frames in time: in order, none without a time.

    Matroska, WebM and FLV round times to milliseconds.  Where those are the rounded times of a
    constant rate, frames go to where they were before; others stay where they are.
    """

    def __init__(self, unit: Fraction, rate: Fraction, origin: Fraction) -> None:
        """`unit`: a tick of the file's times, in seconds.  `origin`: what becomes time 0."""
        self.unit, self.origin, self.period = unit, origin, 1 / rate
        self.time_base = unit
        self.rounded = (self.period / unit).denominator != 1
        if self.rounded:
            both = _common(unit, self.period)
            self.rounded = both.denominator < 10_000_000
            self.time_base = both if self.rounded else unit
        self.first: Fraction | None = None
        self.last: Fraction | None = None
        self.repaired = 0
        """Frames whose times made no sense and that follow the one before at the rate."""

    def place(self, pts: int | None, duration: int) -> tuple[int, int]:
        """A frame's time and duration in ticks of the file -> in ticks of `time_base`."""
        time = None if pts is None else pts * self.unit - self.origin
        longest = longest_gap(self.time_base) * self.time_base
        length = duration * self.unit
        if self.last is None or self.first is None:
            if time is None or abs(time) > longest:
                self.repaired += time is not None
                time = Fraction(0)
            self.first = time
        elif time is None or not self.last < time <= self.last + longest:
            self.repaired += time is not None
            time = self.last + max(self.period, self.unit)
        elif self.rounded:
            even = self.first + round((time - self.first) / self.period) * self.period
            if even > self.last and abs(even - time) <= self.unit:
                time, length = even, self.period
        self.last = time
        if not 0 < length <= longest:
            length = self.period
        return round(time / self.time_base), max(1, round(length / self.time_base))


def longest_gap(unit: Fraction) -> int:
    """Ticks of `unit` seconds that may lie between neighbours: an hour, or what MP4 can write."""
    return min(math.ceil(3600 / unit), 2**30)


def _common(a: Fraction, b: Fraction) -> Fraction:
    """The largest unit of which both are multiples."""
    numerator = math.gcd(a.numerator * b.denominator, b.numerator * a.denominator)
    return Fraction(numerator, a.denominator * b.denominator)
