"""schema.json beside TFRecord files: what a record holds. Written by `edgeloop data write`, read by the trainer.

{"format": "edgeloop-examples/1", "features": {NAME: TYPE}, "label": null | {"name", "type", "kind"},
 "classes": [NAME, ...], "class_count": N, "value_range": null | [LOW, HIGH], "counts": null | {FILE: N}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.atomic import write_file
from edgeloop.cloud.input.examples import LabelKind, TensorType
from edgeloop.cloud.input.tensor_types import as_text, tensor_type
from edgeloop.errors import DataError, EdgeloopError

FILE = "schema.json"
FORMAT = "edgeloop-examples/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a record holds.

    Attributes:
        label: Name and type; None: there are no labels.
        value_range: What unsigned bytes are mapped to when they are read; None: they stay as they are.
        counts: Records of each file by its name; empty: not known.
    """

    features: Mapping[str, TensorType]
    label: tuple[str, TensorType] | None
    label_kind: LabelKind | None
    classes: tuple[str, ...] = ()
    class_count: int = 0
    value_range: tuple[float, float] | None = None
    counts: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        label = None
        if self.label is not None and self.label_kind is not None:
            label = {"name": self.label[0], "type": as_text(self.label[1]), "kind": self.label_kind.value}
        return {
            "format": FORMAT,
            "features": {name: as_text(kind) for name, kind in self.features.items()},
            "label": label,
            "classes": list(self.classes),
            "class_count": self.class_count,
            "value_range": None if self.value_range is None else list(self.value_range),
            "counts": None if self.counts is None else dict(self.counts),
        }


def write_schema(folder: Path, schema: Schema) -> None:
    """Write schema.json into a folder."""
    write_file(folder / FILE, (json.dumps(schema.to_json(), indent=1, sort_keys=True) + "\n").encode())


def read_schema(folder: Path) -> Schema | None:
    """The schema in a folder; None: there is none.

    Raises:
        DataError: It cannot be read, or is of another format.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}, expected {FORMAT!r}")
        label, low_high = found["label"], found["value_range"]
        return Schema(
            features={name: tensor_type(text, name) for name, text in found["features"].items()},
            label=label and (label["name"], tensor_type(label["type"], "label")),
            label_kind=label and LabelKind(label["kind"]),
            classes=tuple(found["classes"]),
            class_count=int(found["class_count"]),
            value_range=low_high and (float(low_high[0]), float(low_high[1])),
            counts=found["counts"],
        )
    except (OSError, ValueError, KeyError, TypeError, EdgeloopError) as e:
        raise DataError(f"{path} is no schema of examples ({e})", advice="Write the data again.") from e
