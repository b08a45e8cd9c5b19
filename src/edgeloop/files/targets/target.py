"""A .tflite or a bundle in; which of its operators a target runs, and what they need, out. Nothing is run."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeloop.bundle import Format, is_bundle, read_bundle
from edgeloop.errors import ModelError, OptionsError
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.files.graph_facts import GraphFacts, facts


class Target(enum.StrEnum):
    EDGETPU = "edgetpu"
    CORTEX_M = "cortex-m"

    @property
    def key(self) -> str:
        """Its name in a JSON document."""
        return self.value.replace("-", "_")


def inspect_for_target(path: str | Path, target: Target, variant: str | None = None) -> dict[str, dict[str, Any]]:
    """The target's report on each .tflite, by variant; "" for a file that is no bundle.

    Raises:
        ModelError: The file is damaged.
        OptionsError: It is no .tflite and no bundle with one, or the bundle has no such variant.
    """
    path = Path(path)
    if not is_bundle(path):
        if variant is not None:
            raise OptionsError(
                f"--variant {variant} applies to a bundle, and {path} is not one", advice="Leave --variant out."
            )
        return {"": _file(path, target)}
    entries = {v.id: v.entry for v in read_bundle(path).manifest.variants if v.format is Format.TFLITE}
    if not entries:
        raise OptionsError(
            f"{path} has no .tflite variant, which --target {target.value} needs", advice="Convert with --to tflite."
        )
    if variant is not None and variant not in entries:
        raise OptionsError(f"{path} has no .tflite variant {variant!r}", advice=f"Choose one of: {', '.join(entries)}.")
    return {name: _file(path / entry, target) for name, entry in entries.items() if variant in (None, name)}


def _file(path: Path, target: Target) -> dict[str, Any]:
    if path.is_dir() or (path.is_file() and path.suffix in (".onnx", ".keras", ".h5")):
        raise OptionsError(
            f"--target {target.value} reads .tflite files, and {path} is not one", advice="Convert it first."
        )
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ModelError(f"{path} cannot be read: {e.strerror}", advice="Expected a .tflite file.") from e
    model = read_tflite(data, str(path))
    if not model.graphs:
        raise ModelError(f"{path} holds no graph", advice="Convert it again.")
    try:
        graphs = [facts(graph, data) for graph in model.graphs]
        report = _report(target, graphs, len(data))
    except (ValueError, IndexError) as e:  # options out of the file, operators without the inputs they must have
        raise ModelError(f"{path} is a damaged .tflite file ({e})", advice="Fetch it or convert it again.") from e
    return {**report, "graphs": len(model.graphs)}


def _report(target: Target, graphs: Sequence[GraphFacts], model_bytes: int) -> dict[str, Any]:
    """Imports what it needs: most calls of the verb name no target, and its start is what they wait for."""
    if target is Target.EDGETPU:
        from edgeloop.files.targets.edgetpu import report as edgetpu_report

        return edgetpu_report(graphs[0])
    from edgeloop.files.targets.cortex_m import report as cortex_m_report

    return cortex_m_report(graphs, model_bytes)
