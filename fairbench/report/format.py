"""Numbers for people: fractions become percent or points here and nowhere else; the unit is in the header."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable

from fairbench.statistics.results import Difference, Estimate

NOTHING = "–"


def percent(value: float | None) -> str:
    """Print a fraction in percent, or a difference of fractions in points."""
    if value is None:
        return NOTHING
    return f"{100 * value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def root(variance: float | None) -> float | None:
    """Turn a variance into a standard deviation; an estimate below 0 keeps its sign."""
    return None if variance is None else math.copysign(math.sqrt(abs(variance)), variance)


def share(value: float | None) -> str:
    """Print a share in percent with two significant digits, however small."""
    if not value:
        return NOTHING if value is None else "0"
    digits = max(0, 1 - math.floor(math.log10(abs(100 * value))))
    return f"{100 * value:.{min(digits, 6)}f}"


def fraction(value: float | None) -> str:
    """Print a fraction as it is, to three digits."""
    return NOTHING if value is None else f"{value:.3f}"


def whole(value: int | None) -> str:
    """Print a count."""
    return NOTHING if value is None else f"{value:,}"


def p_value(p: float | None) -> str:
    """Print a p-value to three digits, without claiming more."""
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def seconds(value: float | None) -> str:
    """Print a duration in seconds."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def gibibytes(value: int | None) -> str:
    """Print bytes in GiB."""
    return NOTHING if value is None else f"{value / 2**30:.2f}"


def with_interval(estimate: Estimate, write: Callable[[float | None], str] = percent) -> str:
    """Print a value and its interval, in percent or points unless told otherwise: `53.5 [51.3, 55.7]`."""
    if estimate.value is None or estimate.interval is None:
        return write(estimate.value)
    return f"{write(estimate.value)} [{write(estimate.low)}, {write(estimate.high)}]"


def signed(difference: Difference) -> str:
    """Print a difference with its sign and interval in points: `−2.6 [−5.1, +0.2]`."""
    if difference.value is None:
        return NOTHING
    value = _sign(difference.value)
    if difference.low is None or difference.high is None:
        return value
    return f"{value} [{_sign(difference.low)}, {_sign(difference.high)}]"


def _sign(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def plain(text: str) -> str:
    """Put text from data on one line, without control characters or marks that reverse its direction."""
    safe = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") else c for c in text)
    return " ".join(safe.split())
