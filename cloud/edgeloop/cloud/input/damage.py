"""A read that failed inside TensorFlow, said in terms of files and records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from edgeloop.cloud.input.examples import Examples
from edgeloop.errors import DataError, one_line
from edgeloop.extras import need


@contextlib.contextmanager
def named_damage(examples: Examples) -> Iterator[None]:
    """Around whatever takes batches, a training step included.

    Raises:
        DataError: A record or file is damaged: which one, where the format can tell. TensorFlow's other errors pass.
    """
    errors = need("tensorflow", extra="cloud").errors
    try:
        yield
    except (errors.DataLossError, errors.InvalidArgumentError, errors.NotFoundError) as e:
        if examples.find_damage is not None:
            examples.find_damage()
        if isinstance(e, errors.InvalidArgumentError):
            raise  # no file is to blame: a step's own error
        raise DataError(f"{examples.name} cannot be read: {one_line(e)}", advice="Write the file again.") from e
