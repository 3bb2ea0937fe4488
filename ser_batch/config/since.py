"""A point in time as people write it: a date, or how long ago."""

import datetime
import re

from ser_batch.errors import UsageError

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([mhdw])")


def parse_since(text: str, now: datetime.datetime | None = None) -> datetime.datetime:
    """Return the moment that ``--since`` means, with its time zone.

    Parameters
    ----------
    text
        An ISO date or date-time, in local time where it names no zone, or an age: ``90m``, ``24h``, ``7d``, ``2w``.
    now
        What an age counts from; None is now.

    Raises
    ------
    UsageError
        It is neither.

    Examples
    --------
    >>> noon = datetime.datetime(2026, 3, 2, 12, tzinfo=datetime.timezone.utc)
    >>> parse_since("36h", noon).isoformat()
    '2026-03-01T00:00:00+00:00'
    >>> parse_since("2026-03-01T08:30:00+01:00").isoformat()
    '2026-03-01T08:30:00+01:00'
    """
    age = _AGE.fullmatch(text.strip())
    try:
        if age:
            seconds = float(age[1]) * _SECONDS[age[2]]
            return (now or datetime.datetime.now().astimezone()) - datetime.timedelta(seconds=seconds)
        moment = datetime.datetime.fromisoformat(text.strip())
        moment = moment if moment.tzinfo else moment.astimezone()
        moment.timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"--since {text!r}; expected a date such as 2026-03-01, a time such as 2026-03-01T18:00, or an age such as "
            "90m, 24h, 7d, 2w"
        ) from error
    return moment
