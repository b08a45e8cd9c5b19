"""An .onnx file in, a SavedModel with the same inputs and outputs out. onnx2tf does it, in its own environment."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from edgeloop.convert.sources.names import arguments, identifiers
from edgeloop.convert.sources.onnx_environment import onnx2tf_python
from edgeloop.errors import MissingExtra, ModelError, last_line, one_line
from edgeloop.extras import need
from edgeloop.processes.job import WorkerBug, run_job
from edgeloop.processes.sandbox import Limits
from edgeloop.progress import Progress, silent
from edgeloop.runtime.program import local_program

CHILD = Path(__file__).with_name("onnx2tf_child.py")
START = "import runpy, sys; sys.path.append(sys.argv[1]); runpy.run_path(sys.argv[2], run_name='__main__')"
UNLIMITED_BYTES = 1 << 62
RAISED = re.compile(r"^[\w.]*(?:Error|Exception)\b", re.MULTILINE)


def onnx_to_saved_model(path: Path, folder: Path, progress: Progress = silent, timeout_s: float = 300.0) -> Path:
    """Convert the .onnx at `path`, whose external data was checked before, into the SavedModel `folder`.

    Its signature `serving_default` has the inputs and outputs of the ONNX graph: names as `onnx_names` gives them,
    shapes in ONNX's order of dimensions (a free dimension stays free), dtypes. It answered two sets of made-up inputs
    as ONNX Runtime did. The environment of onnx2tf is made on first use.

    Returns:
        `folder`.

    Raises:
        ModelError: The file is damaged, has an operator that onnx2tf lacks, computes something else once converted,
            or takes longer than `timeout_s`.
        MissingExtra: There is no environment with onnx2tf and none can be made, with the line that makes it.
    """
    inputs, outputs = onnx_names(path)
    job = {
        "model": str(path.resolve()),
        "folder": str(folder.resolve()),
        "inputs": list(inputs.values()),
        "outputs": list(outputs.values()),
    }
    python = onnx2tf_python(progress)
    progress(f"{path.name}: onnx2tf", 0, 1)
    _convert(python, job, path, progress, timeout_s)
    progress(f"{path.name}: onnx2tf", 1, 1)
    return folder


def onnx_names(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Inputs and outputs: ONNX's own name of each, in its order, to the one it has in the SavedModel.

    Raises:
        ModelError: The file is no ONNX model.
    """
    onnx = need("onnx", extra="convert")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as e:  # protobuf's DecodeError is another class in each of its implementations
        raise ModelError(
            f"{path} is not an ONNX model ({type(e).__name__})", advice="Export it again, or fetch it again."
        ) from e
    constants = {tensor.name for tensor in graph.initializer}  # before IR 4 these are listed as inputs too
    sides = [[v.name for v in graph.input if v.name not in constants], [v.name for v in graph.output]]
    if not all(sides):
        raise ModelError(
            f"{path} has {len(sides[0])} inputs and {len(sides[1])} outputs", advice="It needs at least one of each."
        )
    inputs, outputs = arguments(sides[0]), identifiers(sides[1])
    return dict(zip(sides[0], inputs, strict=True)), dict(zip(sides[1], outputs, strict=True))


def _raised(traceback: str) -> str:
    """What a traceback says was raised: Keras writes the arguments of a call below it."""
    starts = [found.start() for found in RAISED.finditer(traceback)]
    return one_line(traceback[starts[-1] :]).removesuffix(".") if starts else last_line(traceback)


def _convert(python: Path, job: dict[str, Any], path: Path, progress: Progress, timeout_s: float) -> None:
    """Run `onnx2tf_child.py`, which has edgeloop's packed program on its path: edgeloop is not installed there."""
    # the memory is limited by whoever runs this
    limits = Limits(read_bytes=UNLIMITED_BYTES, read_s=timeout_s)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            run_job(["-c", START, local_program(), CHILD], job, limits, progress, python=python, cwd=Path(scratch))
        except ModelError as e:
            raise e.at(str(path)) from e
        except WorkerBug as e:
            raise ModelError(
                f"{path}: onnx2tf fails: {_raised(str(e))}",
                advice="Convert the model that the .onnx was exported from.",
            ) from e
        except OSError as e:
            raise MissingExtra(
                f"{python} cannot be started ({e.strerror})", advice="Run: edgeloop setup onnx2tf"
            ) from e
