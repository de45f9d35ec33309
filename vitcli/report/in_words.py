"""Durations, sizes and numbers as people read them."""


def duration(seconds: float | None) -> str:
    """`45 s`, `12.3 min`, `3.4 h`, `2.1 d`."""
    if seconds is None:
        return ""
    for unit, length, limit in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 48 * 3600)):
        if seconds < limit - length / 20:  # not 60.0 min
            return f"{seconds / length:.0f} s" if unit == "s" else f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86400:.1f} d"


def size(num_bytes: int) -> str:
    """`3 kB`, `12.3 MB`, `4.56 GB`, in powers of ten."""
    for unit, length, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 0)):
        if num_bytes >= length:
            return f"{num_bytes / length:.{digits}f} {unit}"
    return f"{num_bytes} B"


def value(number: float | None) -> str:
    """A number of an evaluation: two digits after the point, more of small ones."""
    if number is None:
        return ""
    return f"{number:.2f}" if abs(number) >= 1 or number == 0 else f"{number:.3g}"
