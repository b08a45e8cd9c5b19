"""A float32 .tflite and real inputs in, what every integer scheme needs to know of them out: measured once."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeloop.convert.calls import fixed_batch
from edgeloop.convert.forms.bias import channel_means
from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.ranges import useful
from edgeloop.convert.forms.rewrite import for_integers
from edgeloop.convert.forms.rounding import InputMoments, int8_steps, watched
from edgeloop.convert.forms.stated_ranges import stated_ranges
from edgeloop.convert.forms.unlike_steps import with_unlike_steps
from edgeloop.convert.forms.weighted import SAMPLES, inputs_of, read, weighted
from edgeloop.convert.samples import Samples
from edgeloop.convert.sources.source import Source
from edgeloop.errors import DeviceError, ModelError, TargetError, one_line
from edgeloop.extras import need
from edgeloop.progress import Progress, silent
from edgeloop.runtime.client import RuntimeClient, agent
from edgeloop.runtime.device import parse_device
from edgeloop.runtime_table import LITERT

BATCH, BATCH_BYTES = 16, 1 << 18  # a calibration batch: as many samples, but no more bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a quantized file is compared with: float32 on a few samples, run `batch` at a time."""

    float32: bytes
    signature: str
    samples: Samples
    batch: int

    def snr_db(self, quantized: bytes) -> float:
        """Of the worst output; minus infinity where LiteRT cannot run the file, or it answers NaN or infinity.

        It runs in a process of its own: LiteRT 2.3 aborts on some of the int16 files that TFLiteConverter makes.
        """
        with tempfile.TemporaryDirectory() as folder:
            for name, data in (("float.tflite", self.float32), ("quantized.tflite", quantized)):
                (Path(folder) / name).write_bytes(data)
            try:
                with agent(parse_device("local"), LITERT.name, folder) as running:
                    exact, got = (self._answers(running, f"{name}.tflite") for name in ("float", "quantized"))
            except (TargetError, DeviceError):
                return -math.inf
        return min(_snr_db(exact[name], got[name]) for name in exact)

    def _answers(self, running: RuntimeClient, file: str) -> dict[str, np.ndarray]:
        running.prepare(file)
        parts = [running.run(batch, self.signature).outputs for batch in self.samples.batches(self.batch, fill=True)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What real inputs told about a float32 flatbuffer, enough for every scheme.

    Attributes:
        ranges: Smallest and largest value by tensor name, measured (some a little wider) or stated by the model:
            {"min": [1], "max": [1]}, float32.
        means: Mean input of the operators with weights by the input's tensor name: float64 [channels].
        factors: Which of their inputs go together, as `rounding.Inputs.factors` gives it.
        steps: Their int8 weights rounded with that, at one scale per output channel, by the weights' name.
        probe: To tell which of two files is closer to float32. None: made by hand.
    """

    ranges: Mapping[str, Mapping[str, np.ndarray]]
    means: Mapping[str, np.ndarray]
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    steps: Mapping[str, np.ndarray] = field(default_factory=dict)
    probe: Probe | None = None


def calibrate(float32: bytes, source: Source, samples: Samples, progress: Progress = silent) -> Calibration:
    """Run the model over all `samples`, once for every scheme. A few of them are in memory at a time.

    Raises:
        ModelError: The quantizer cannot run the model.
    """
    calibrator = need("ai_edge_quantizer.calibrator", extra="convert")
    utils = need("ai_edge_quantizer.utils.qsv_utils", extra="convert")
    manager = need("ai_edge_quantizer.recipe_manager", extra="convert").RecipeManager()
    manager.load_quantization_recipe(need("ai_edge_quantizer.recipe", extra="convert").static_wi8_ai8())
    stated, float32 = stated_ranges(float32), for_integers(float32)
    fixed = fixed_batch(source.inputs)
    sample_bytes = sum(array[:1].nbytes for array in samples.inputs.values())
    size = samples.at_once(fixed or max(1, min(BATCH, BATCH_BYTES // sample_bytes)))
    sized = _sized(float32, source, samples)
    with quiet(), quantizer_errors("the model"):
        # min_max_update: the default moving average gave 16.9 dB of output SNR where plain extremes gave 31.2.
        # One thread: the profiler looks for extremes in one, and a second only waits for it (12% more CPU, no faster).
        runner = calibrator.Calibrator(
            sized,
            num_threads=1,
            qsv_update_func=utils.min_max_update,
            mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        )
        for done, batch in enumerate(samples.batches(size, fill=fixed is not None), start=1):
            # a list of one: the calibrator takes len(list(dataset)) of what it is given
            runner.calibrate({source.signature: [batch]}, manager)
            progress("calibrate", min(len(samples), done * size), len(samples))
        model, graph = read(float32)
        tensors, inputs = {op.input for op in weighted(model, graph)}, InputMoments(float32)
        seen = inputs_of(sized, tensors, source.signature, samples, size, fill=fixed is not None)
        means = channel_means(watched(seen, inputs))
    ranges = {  # the profiler answers in float64: as float32, its ranges equal those of the slow mode to the bit
        name: {bound: np.asarray(value[bound], np.float32) for bound in ("min", "max")}
        for name, value in runner.get_model_qsvs().items()
        if value
    }
    factors = inputs.factors()
    return Calibration(
        ranges={**with_unlike_steps(float32, useful(float32, ranges)), **stated},
        means={graph.Tensors(i).Name().decode(): mean for i, mean in means.items()},
        factors=factors,
        steps=int8_steps(float32, factors),
        probe=Probe(float32=sized, signature=source.signature, samples=samples.spread(SAMPLES), batch=size),
    )


def _snr_db(exact: np.ndarray, got: np.ndarray) -> float:
    noise = np.sum(np.square(exact.astype(np.float64) - got))
    if not np.isfinite(noise):  # NaN is neither above nor below what it is compared with
        return -math.inf
    return float(10 * np.log10(max(np.sum(np.square(exact, dtype=np.float64)), 1e-30) / max(noise, 1e-30)))


def _sized(float32: bytes, source: Source, samples: Samples) -> bytes:
    """`float32` whose free sizes are at first those of the samples, not 1, which a convolution may be too wide for."""
    first = 0 if samples.whole else 1
    if all(d is not None for spec in source.inputs for d in spec.shape[first:]):
        return float32
    tree = read_tree(float32)
    signature = next(s for s in tree.signatureDefs if s.signatureKey.decode() == source.signature)
    tensors = tree.subgraphs[signature.subgraphIndex].tensors
    for entry in signature.inputs:
        given = samples.inputs[entry.name.decode()]
        tensor = tensors[entry.tensorIndex]
        tensor.shape = [*tensor.shape[:first], *given.shape[1:]]
    return write_tree(tree)


@contextlib.contextmanager
def quantizer_errors(what: object) -> Iterator[None]:
    """Whatever the quantizer raises is a ModelError."""
    try:
        yield
    except Exception as e:  # it raises RuntimeError, ValueError, KeyError and its runtime's own
        raise ModelError(
            f"the quantizer fails on {what} ({one_line(e, 200)})", advice="Use another scheme, such as dynamic."
        ) from e


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The quantizer draws progress bars on stdout and stderr; a command's stdout is one document."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
