"""Sizes and times in plain units."""


def duration(seconds: float) -> str:
    """Seconds as the two largest units: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def three_digits(value: float) -> str:
    """A number that is not negative, to three digits: 0.0123, 45.6, 1,230."""
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def size(count: float) -> str:
    """Bytes in binary units: 512 B, 3.4 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def free_text(count: int | None) -> str:
    """The end of a line about what is written: how much is free, if there is any limit."""
    return "" if count is None else f"; {size(count)} free"


def time_text(seconds: float | None) -> str:
    """How long something takes, as far as it was ever measured."""
    return "not measured yet" if seconds is None else f"{duration(seconds)} at the last measured rate"
