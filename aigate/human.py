"""Why: money and moments stand in answers, tables and files; each is written and read in one exact way.

Money is integers of 1e-9 USD inside and decimal digits outside, never a float on the way.
"""

from datetime import UTC, datetime

NANO = 1_000_000_000


def usd(nano: int) -> str:
    """1e-9 USD as a decimal number of USD: exact, without an exponent or needless zeros, valid in JSON."""
    whole, fraction = divmod(abs(nano), NANO)
    digits = f"{whole}.{fraction:09}".rstrip("0").rstrip(".")
    return f"-{digits}" if nano < 0 else digits


def moment(text: str) -> datetime:
    """The moment that an RFC 3339 time with its zone, or a date (its first instant in UTC), names.

    Raises `ValueError` for anything else, with a sentence for whoever wrote it.
    """
    written = text.strip()
    if "T" in written:
        written = written.replace(" ", "+")  # a plus sign that came through a query string
    try:
        read = datetime.fromisoformat(written)
    except ValueError:
        raise ValueError(f"{text!r} is no date (2026-11-01) and no RFC 3339 time (2026-11-01T08:30:00Z).") from None
    if read.tzinfo is not None:
        return read.astimezone(UTC)
    if len(written) > len("2026-11-01"):
        raise ValueError(f"{text!r} has no time zone: end it in Z or in an offset such as +02:00.")
    return read.replace(tzinfo=UTC)


def written(at: datetime) -> str:
    """A moment as RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
