"""Number formatting for the page."""

import math


def percent(fraction: float | None) -> str:
    """Formats a fraction as a percentage: 0.80199 -> 80.20 %; – for None or non-finite values."""
    return "–" if fraction is None or not math.isfinite(fraction) else f"{fraction * 100:.2f} %"


def points(fraction: float) -> str:
    """Formats a difference of two fractions in percentage points, with its sign."""
    return f"{fraction * 100:+.2f}".replace("-", "−")


def decimal(value: float | None, digits: int = 3) -> str:
    """Formats a number with `digits` decimals; – for None or NaN, ∞ for infinity."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """Formats a number with commas: 25,576,264; – for None."""
    return "–" if value is None else f"{value:,.0f}"


def flops(value: float | None) -> str:
    """Formats multiply-adds: 40.8 M, 4.33 G; – for None."""
    if value is None:
        return "–"
    return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.1f} M"


def duration(seconds: float | None) -> str:
    """Formats a duration: 12.3 s, 17 min 9 s, 2 h 5 min; – for None."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plural(number: int, noun: str) -> str:
    """Formats a count with its noun: 1 image, 2,000 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
