"""A read that failed inside TensorFlow, said in terms of files and records."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.service.reading import service_failure
from edgeloop.errors import DataError, one_line
from edgeloop.extras import need

Item = TypeVar("Item")
SEARCH_S = 120.0  # for the damaged file or record; then the error says only where the data are


def until_late(items: Iterable[Item]) -> Iterator[Item]:
    """The items, up to SEARCH_S seconds from the first."""
    deadline = time.monotonic() + SEARCH_S
    return itertools.takewhile(lambda item: time.monotonic() < deadline, items)


@contextlib.contextmanager
def named_damage(examples: Examples) -> Iterator[None]:
    """Around whatever takes batches, a training step included.

    Raises:
        DataError: A record or file is damaged: which one, where the format can tell. TensorFlow's other errors pass.
        DeviceError: The tf.data service that makes the batches failed or sent nothing.
    """
    errors = need("tensorflow", extra="cloud").errors
    try:
        yield
    except errors.UnknownError as e:  # what Python raised while it made a batch
        failure = service_failure()
        if failure is None:
            raise
        raise failure from e
    except (errors.DataLossError, errors.InvalidArgumentError, errors.NotFoundError) as e:
        if examples.find_damage is not None:
            examples.find_damage()
        if isinstance(e, errors.InvalidArgumentError):
            raise  # no file is to blame: a step's own error
        raise DataError(f"{examples.name} cannot be read: {one_line(e)}", advice="Write the file again.") from e
