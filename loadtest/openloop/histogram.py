"""Latencies in constant memory: a log-linear histogram with the layout and the text output of HdrHistogram.

Gil Tene's HdrHistogram: within each power of two, values fall into equally wide slots, so that every recorded value is
known to a fixed relative error.
"""

from __future__ import annotations

from collections.abc import Iterator

_SUB_BITS = 8
_SUB = 1 << _SUB_BITS
_TICKS_PER_DISTANCE_HALVED = 5


class Histogram:
    """Counts of whole microseconds, each known to 1 in 128 (below 256 µs exactly). Negative values count as 0."""

    __slots__ = ("_counts", "greatest", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0
        self.greatest = 0

    def record(self, seconds: float) -> None:
        """Count one value."""
        value = int(seconds * 1e6) if seconds > 0 else 0
        shift = value.bit_length() - _SUB_BITS
        slot = value if shift <= 0 else (shift << _SUB_BITS) + (value >> shift)
        self._counts[slot] = self._counts.get(slot, 0) + 1
        self.total += 1
        self.greatest = max(self.greatest, value)

    def add(self, other: Histogram) -> None:
        """Count all that another counted."""
        for slot, count in other._counts.items():
            self._counts[slot] = self._counts.get(slot, 0) + count
        self.total += other.total
        self.greatest = max(self.greatest, other.greatest)

    def quantile(self, share: float) -> float:
        """Seconds that `share` (0..1) of the values do not exceed, rounded up to its slot; 0.0 where there are none."""
        needed, seen = max(1, round_up(share * self.total)), 0
        for slot, count in sorted(self._counts.items()):
            seen += count
            if seen >= needed:
                return min(_top_of(slot), self.greatest) / 1e6
        return 0.0

    def above(self, seconds: float) -> int:
        """How many values lie above, as well as slots tell."""
        limit = seconds * 1e6
        return sum(count for slot, count in self._counts.items() if _top_of(slot) > limit)

    def lines(self) -> Iterator[str]:
        """The percentile distribution as HdrHistogram's plotting tools read it, values in milliseconds."""
        yield "       Value     Percentile TotalCount 1/(1-Percentile)"
        yield ""
        for share in _ticks(self.total):
            value = self.quantile(share) * 1e3
            count = round_up(share * self.total)
            rest = f" {1 / (1 - share):14.2f}" if share < 1 else ""
            yield f"{value:12.3f} {share:14.12f} {count:10d}{rest}"
        yield f"#[Max = {self.greatest / 1e3:.3f}, Total count = {self.total}]"


def _top_of(slot: int) -> int:
    """Highest value of a slot, µs."""
    shift = slot >> _SUB_BITS
    if shift == 0:
        return slot
    # Values of this power of two keep their upper 8 bits, the highest of them set: 128..255 of `_SUB`.
    upper = slot - (shift << _SUB_BITS)
    return ((upper + 1) << shift) - 1


def round_up(value: float) -> int:
    """The least whole number that is not below, forgiving what binary fractions leave over."""
    whole = int(value)
    return whole if value - whole < 1e-9 else whole + 1


def _ticks(total: int) -> Iterator[float]:
    """Shares at which the distribution is told: ever closer to 1, until one value makes no difference."""
    share, width = 0.0, 0.5
    while (1 - share) * total > 1:
        for step in range(_TICKS_PER_DISTANCE_HALVED):
            yield share + width * step / _TICKS_PER_DISTANCE_HALVED
        share += width
        width /= 2
    yield 1.0
