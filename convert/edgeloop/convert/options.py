"""What a user asks of `convert`: one frozen value, refused when it contradicts itself. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.bundle import LARGEST, Format, Scheme
from edgeloop.convert.compression.compress import CompressOptions
from edgeloop.convert.forms.preprocess import Preprocessing
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.forms.tfjs import TfjsOptions
from edgeloop.convert.proof.prove import ProveOptions
from edgeloop.convert.search.search import SearchOptions
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.errors import OptionsError
from edgeloop.processes.sandbox import Limits

MEASURED = (Scheme.INT8, Scheme.INT16X8, Scheme.MIXED)  # schemes whose activations need ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """What to write.

    Attributes:
        to: Formats. None: TFLite, and ONNX and TF.js as far as they can hold the model.
        schemes: Schemes of the .tflite files. None: the float ones, and int8 where there is calibration data. A
            .tflite that is quantized already is taken as it is. ONNX gets int8 beside float32 where int8 is here.
        io: What int8 files take and give. Several: one file each.
        tfjs: How TF.js stores weights.
        calibration: .npz (or folder of them) with real inputs, full shapes, 16 samples or more.
        evaluation: .npz with inputs: proves on all of them; with labels `y`, says each variant's metrics.
        train_data: .npz with inputs and labels `y`, for `compress`.
        compress: Prune, cluster or train for quantization before anything is converted.
        preprocess: What devices would have to do to their inputs; it goes into every variant.
        search: Find the smallest mix of schemes that keeps the accuracy.
        trainable: Also one .tflite that a device can train (Keras models).
        reference: Put up to 16 of the inputs and the source's answers into the bundle.
        labels: Names of the classes, in order.
        batch: Of the .tflite files. None: as the model has it, or 1 where TFLite cannot run it with a free batch.
        shapes: Sizes by the name of an input, None for a dimension that stays as the model has it.
        fixed: Of an .onnx: numbers by the name of an input, which becomes a constant.
        strict: Fail where any form cannot be made or does not agree, not only where one that was named does.
        allow_unsafe: Load a model that runs code or touches files; the notes say what was allowed.
        imports: Python files with the classes of the model's own layers; implies `allow_unsafe`.
        cache: Take an unchanged conversion from the cache, and keep this one there.
    """

    to: tuple[Format, ...] | None = None
    schemes: tuple[Scheme, ...] | None = None
    io: tuple[Io, ...] = (Io.FLOAT32,)
    tfjs: TfjsOptions = field(default_factory=TfjsOptions)
    calibration: Path | None = None
    evaluation: Path | None = None
    train_data: Path | None = None
    compress: CompressOptions | None = None
    preprocess: Preprocessing | None = None
    search: SearchOptions | None = None
    trainable: TrainableOptions | None = None
    signature: str | None = None
    release: int = 1
    name: str | None = None
    reference: bool = True
    labels: tuple[str, ...] = ()
    prove: ProveOptions = field(default_factory=ProveOptions)
    limits: Limits = field(default_factory=Limits)
    batch: int | None = None
    shapes: tuple[tuple[str, tuple[int | None, ...]], ...] = ()
    fixed: tuple[tuple[str, tuple[float, ...]], ...] = ()
    strict: bool = False
    allow_unsafe: bool = False
    imports: tuple[Path, ...] = ()
    cache: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.release <= LARGEST:
            raise OptionsError(f"--release is {self.release}", advice=f"It must be 1 or more, and at most {LARGEST}.")
        if self.batch is not None and self.batch < 1:
            raise OptionsError(f"--batch is {self.batch}", advice="It must be 1 or more.")
        if self.batch is not None and self.to is not None and Format.TFLITE not in self.to:
            raise OptionsError("--batch applies to .tflite files, which --to leaves out", advice="Add --to tflite.")
        if self.to is not None and Format.SAVEDMODEL in self.to:
            raise OptionsError(
                "--to is savedmodel, which this version cannot write", advice="Choose from tflite, onnx, tfjs."
            )
        if self.calibration is None:
            self._need_calibration()
        if self.to is not None and Format.TFLITE not in self.to and (self.schemes or self.trainable or self.search):
            raise OptionsError(
                "--schemes, --max-drop and --trainable apply to .tflite files, which --to leaves out",
                advice="Add --to tflite.",
            )
        if self.schemes and Scheme.MIXED in self.schemes and self.search is not None:
            raise OptionsError(
                "--schemes is mixed, and --max-drop finds a mix itself", advice="Leave mixed out of --schemes."
            )
        if self.io != (Io.FLOAT32,) and self.schemes is not None and Scheme.INT8 not in self.schemes:
            raise OptionsError("--io applies to int8 files, which --schemes leaves out", advice="Add --schemes int8.")
        if (self.compress is None) != (self.train_data is None):
            found, missing = (
                ("--train-data", "--prune, --cluster or --qat")
                if self.train_data
                else ("--prune, --cluster or --qat", "--train-data F.npz")
            )
            raise OptionsError(f"{found} needs {missing}", advice="Pass both, or neither.")

    def _need_calibration(self) -> None:
        measured = [s.value for s in self.schemes or () if s in MEASURED]
        if self.search is not None:
            measured.append("--max-drop")
        elif self.io != (Io.FLOAT32,):
            measured.append("--io")
        if measured:
            raise OptionsError(
                f"{measured[0]} needs real inputs to measure activation ranges",
                advice=f"Pass --calibration F.npz, or leave {measured[0]} out.",
            )
