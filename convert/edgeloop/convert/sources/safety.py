"""A model file, looked at by code that cannot run it. Loads no framework.

What could harm while a file is merely opened (a path that leads out, a bomb, damage) is refused always. What runs code,
or reads and writes files, when the model is loaded or called is refused unless the user allows it, and named if so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeloop.convert.sources.identify import SourceKind
from edgeloop.convert.sources.safety_keras import scan_keras
from edgeloop.convert.sources.safety_onnx import scan_onnx
from edgeloop.convert.sources.safety_saved_model import scan_saved_model
from edgeloop.convert.sources.safety_tfjs import scan_tfjs
from edgeloop.convert.sources.safety_tflite import scan_tflite
from edgeloop.errors import ModelError, one_line
from edgeloop.files.inspect import DAMAGE

# each says, in half a sentence about the file, what in it runs code or touches files
SCANNERS: dict[SourceKind, Callable[[Path], list[str]]] = {
    SourceKind.KERAS: scan_keras,
    SourceKind.SAVEDMODEL: scan_saved_model,
    SourceKind.TFLITE: scan_tflite,
    SourceKind.ONNX: scan_onnx,
    SourceKind.TFJS: scan_tfjs,
}
UNSAFE = "Remove it from the model, or pass --allow-unsafe if you trust whoever made the model."
OWN_LAYERS = (
    "Call model.export() where the model was trained and convert the SavedModel, or pass --import F.py with the file "
    "that defines it if you trust whoever made the model."
)


def check_safety(path: str | Path, kind: SourceKind, allow_unsafe: bool = False) -> tuple[str, ...]:
    """Look at a model before any loader sees it.

    Args:
        kind: As `identify` said.
        allow_unsafe: Let code and file operations through.

    Returns:
        What was allowed, one sentence each; empty unless `allow_unsafe`.

    Raises:
        ModelError: Damaged, over a limit, leads out of itself, holds NaN weights, or runs code; names what was found.
        MissingExtra: h5py or the flatbuffer schema is not installed.
    """
    path = Path(path)
    try:
        unsafe = SCANNERS[kind](path)
    except DAMAGE as e:
        reason = one_line(e, 200)
        raise ModelError(
            f"{path} is a damaged {kind} model ({type(e).__name__}: {reason})",
            advice="Save it again, or fetch it again.",
        ) from e
    if unsafe and not allow_unsafe:
        more = f", and {len(unsafe) - 1} more parts like it" if len(unsafe) > 1 else ""
        own = "which would be imported" in unsafe[0]
        raise ModelError(f"{path} {unsafe[0]}{more}", advice=OWN_LAYERS if own else UNSAFE)
    return tuple(f"--allow-unsafe: {path.name} {what}." for what in unsafe)
