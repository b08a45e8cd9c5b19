"""Whether data fit into the memory, before they fill it."""

from __future__ import annotations

from edgeloop.errors import DataError
from edgeloop.runtime.agent.machine.memory import ram

SHARE = 0.8  # of the available memory that data may take


def see_that_it_fits(name: str, needed_bytes: int, advice: str = "Write it as TFRecord files in parts.") -> None:
    """See that so many bytes are available.

    Raises:
        DataError: They are not.
    """
    available = ram()["ram_available_bytes"]
    if isinstance(available, int) and needed_bytes > SHARE * available:
        raise DataError(
            f"{name} needs {needed_bytes / 1e6:.0f} MB of memory, and {available / 1e6:.0f} MB are available",
            advice=advice,
        )
