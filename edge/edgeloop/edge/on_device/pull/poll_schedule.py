"""When a device asks its source again: never all devices in the same second. Python 3.9 syntax, the standard library.

Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter)
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_RETRY_S = 10.0  # doubled by each failure
LONGEST_RETRY_S = 900.0  # or the time between polls, where that is longer
SHORTEST_S = 1.0
LONGEST_WISH_S = 86_400.0  # of a server's Retry-After

Random = Callable[[], float]  # from 0 to 1


def first_delay_s(poll_s: float, has_release: bool, random: Random) -> float:
    """Before the first poll: none for a device without a release; others start together after a power cut."""
    return random() * poll_s if has_release else 0.0


def delay_s(poll_s: float, failures: int, retry_after_s: float | None, random: Random) -> float:
    """After a poll, the `failures`-th in a row that failed; 0: it did not."""
    if failures:
        longest = max(poll_s, LONGEST_RETRY_S)
        base = min(poll_s, FIRST_RETRY_S)
        delay = max(min(SHORTEST_S, poll_s), random() * min(longest, base * 2.0 ** min(failures, 30)))
    else:
        delay = poll_s * (0.5 + random())
    if retry_after_s is not None:  # and not all in the second that it names
        delay = max(delay, min(retry_after_s, LONGEST_WISH_S) + random() * poll_s)
    return delay
