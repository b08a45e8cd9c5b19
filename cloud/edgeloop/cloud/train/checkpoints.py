"""The whole state of a training on disk: every variable by an explicit name, and how far it came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.atomic import new_folder
from edgeloop.errors import DataError, one_line
from edgeloop.extras import need

STATE, PROGRESS = "state", "progress.json"


def state_variables(model: Any, optimizer: Any) -> dict[str, Any]:
    """Names to TensorFlow variables: weights, states of random layers, slots of the optimizer."""
    every = [*model.variables, *optimizer.variables]
    return {f"v{k:04d}": variable.value for k, variable in enumerate(every)}


def save_state(folder: Path, variables: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
    """Replace the state in `folder` by this one; a kill leaves the old one or the new one.

    Raises:
        WriteError: The disk or the permissions refuse.
    """
    tf = need("tensorflow", extra="cloud")
    with new_folder(folder) as unfinished:
        tf.train.Checkpoint(**variables).write(str(unfinished / STATE))
        (unfinished / PROGRESS).write_text(json.dumps(progress))


def restore_state(folder: Path, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The progress that was saved; the variables get their values.

    Raises:
        DataError: There is no state, or one of another model or optimizer.
    """
    tf = need("tensorflow", extra="cloud")
    try:
        progress = json.loads((folder / PROGRESS).read_text())
        restored = tf.train.Checkpoint(**variables).read(str(folder / STATE))
        restored.assert_consumed().expect_partial()
    except (OSError, ValueError, AssertionError, tf.errors.OpError) as e:
        raise DataError(
            f"{folder} holds no state that this training can continue ({one_line(e)})",
            advice="Resume with the same model and optimizer, or train into a new folder.",
        ) from e
    return progress
