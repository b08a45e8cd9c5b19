"""An imported function and the ONNX model it came from in: nothing, or a refusal that names the node that differs.

LiteRT's and TF.js's files are proved later; here only the import is judged, on float32 and by TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.importer import OnnxFunction
from edgeloop.convert.onnx.original import OriginalModel
from edgeloop.convert.onnx.trials import Trial
from edgeloop.convert.onnx.value import INT32, SENTINEL
from edgeloop.errors import ModelError
from edgeloop.extras import need
from edgeloop.runtime.parity.compare import ROUNDING

tf: Any = need("tensorflow", extra="convert")

# of the span of the values, and a tenth of that of the largest, for outputs that hardly vary: float32 rounds by 6e-8, a
# sum of n terms in another order moves by up to sqrt(n) of that (10,000 terms: 6e-6), and the layers' add up. Of 26
# float nets out of public wheels, 48 trials, the most was 0.14 of it. A wrong transposition was off by 0.06 of the
# span, 600 times as much. Outputs that end in a sigmoid or softmax may also be off by ROUNDING: 2 of the 26 need it
# (sigmoids of at most 1e-5, of a detector that finds nothing; one probability alone, which has no span), 0.24 of it
SPAN = 1e-4
HALF_FLOATS = 5e-3  # where ONNX Runtime computes in 16 bits: it rounds by 5e-4, float32 does not
TIES = 1e-3  # whole numbers come from a comparison, which a tie may turn: one in a thousand
# A model may amplify rounding: what ONNX Runtime's own answers change by when its inputs are rounded tells how much.
# None of the 26 float nets needs it
NUDGE = 1e-6
# where a model rounds to 8 bits by itself, a step that falls the other way moves all that comes after, in ONNX Runtime
# as here: the import was off by 0.3 to 0.8 of what this nudge changed in three such nets, one trial each may be luckier
NUDGE_OF_STEPS = 1e-4
ALLOWED_NUDGES = 2.0
# of the span; beyond that, a wrong layer would be hidden. Of a quantized reader of text the import was off by 0.009
LARGEST_NUDGE = 0.02
CHUNK = 64  # tensors that are compared at once, in search of the first that differs


class Judge:
    """Compares an imported function with its original.

    Attributes:
        inputs: What the function takes.
    """

    def __init__(
        self, original: OriginalModel, function: OnnxFunction, traced: Any, bounded: Collection[str] = frozenset()
    ):
        """`traced` is the concrete function of `function`, which takes its inputs by position; `bounded` are names of
        outputs that end in a sigmoid or softmax."""
        self._original, self._function, self._traced = original, function, traced
        self._floors = [ROUNDING if name in bounded else 0.0 for name in function.outputs]
        self.inputs = function.inputs

    def check(self, trials: Sequence[Trial]) -> None:
        """Run the function on every trial.

        Raises:
            ModelError: It computes something else than ONNX Runtime, at which node; or cannot run.
        """
        for trial in trials:
            off = self._excesses(trial, self._run(self._traced, trial.fed))
            if max(off) > 1.0:
                moved = self._excesses(trial, self._nudged(trial))
                if not self._is_rounding(trial, off, moved):
                    raise self._refusal(trial, off, moved)

    def _excesses(self, trial: Trial, found: Sequence[np.ndarray]) -> list[float]:
        return list(map(self._excess, trial.answers, found, self._floors))

    def _excess(self, expected: np.ndarray, found: np.ndarray, floor: float = 0.0) -> float:
        return excess(expected, found, self._span(expected), floor)

    def _span(self, expected: np.ndarray) -> float:
        """The part of an output's span that is an excess of 1; of whole numbers, which have none, the smaller one."""
        half = expected.dtype.kind not in "biu" and self._function.floats & {"float16", "bfloat16"}
        return HALF_FLOATS if half else SPAN

    def _run(self, traced: Any, fed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        pairs = zip(self._function.inputs, self._function.specs(), strict=True)
        values = [tf.constant(fed[t.name].astype(spec.dtype.as_numpy_dtype)) for t, spec in pairs]
        try:
            made = traced(*values)
            made = [made[f"output_{i}"] for i in range(len(made))] if isinstance(made, dict) else made
            return [np.asarray(value) for value in made]
        except Exception as e:  # TensorFlow's own; of kernels that do not take these sizes
            sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in fed.items())
            raise ModelError(
                f"once imported, it does not run on inputs of the sizes {sizes}, which ONNX Runtime accepts",
                advice="Fix its sizes with --shape NAME=SIZES.",
            ) from e

    def _is_rounding(self, trial: Trial, off: Sequence[float], moved: Sequence[float]) -> bool:
        """Whether ONNX Runtime's answers change as much when its inputs are rounded anew."""
        return all(
            one <= 1.0 or (one * self._span(answer) <= LARGEST_NUDGE and one <= ALLOWED_NUDGES * own)
            for one, own, answer in zip(off, moved, trial.answers, strict=True)
        )

    @property
    def _nudge(self) -> float:
        return NUDGE_OF_STEPS if self._original.is_quantized else NUDGE

    def _nudged(self, trial: Trial) -> list[np.ndarray]:
        """ONNX Runtime's answers to inputs of which every float is that part of itself larger or smaller."""
        rng, nudge = np.random.default_rng(1), self._nudge
        nudged = {
            name: (array * (1 + nudge * rng.choice((-1, 1), array.shape))).astype(array.dtype)
            if array.dtype.kind == "f"
            else array
            for name, array in trial.fed.items()
        }
        return self._original.run(nudged)

    def _refusal(self, trial: Trial, off: Sequence[float], moved: Sequence[float]) -> ModelError:
        wrong = [i for i, one in enumerate(off) if one > 1.0]
        change = max(moved[i] * self._span(trial.answers[i]) for i in wrong)
        if LARGEST_NUDGE < change < np.inf:
            return ModelError(
                f"ONNX Runtime's own answers change by {change:.0%} of their span when the inputs change by "
                f"{self._nudge:g} of themselves, so that no conversion can be compared with them",
                advice="Convert the model as it was before it was quantized."
                if self._original.is_quantized
                else "Pass inputs that it is meant for with --eval.",
            )
        names = [self._function.outputs[i] for i in wrong]
        node = self.first_difference(trial.fed) or self._function.made().get(names[0], "")
        at = f"; the first difference is at {node}" if node else ""
        return ModelError(
            f"once imported, it computes {', '.join(names)} differently from ONNX Runtime{at}",
            advice="Convert the model that the .onnx was exported from, or export it without that operator.",
        )

    def first_difference(self, fed: Mapping[str, np.ndarray]) -> str:
        """Operator and name of the first node of the main graph whose result differs; "" where none is found."""
        made = self._function.made()
        inner = [name for name in made if name in self._original.inner]
        for start in range(0, len(inner), CHUNK):
            names = inner[start : start + CHUNK]
            expected = dict(zip(names, self._original.with_outputs(names).run(fed)[-len(names) :], strict=True))
            for name, value in self._inside(names, fed).items():
                if self._excess(_in_32_bits(expected[name]), value) > 1.0:
                    return made[name]
        return ""

    def _inside(self, names: Sequence[str], fed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Those of these tensors that the function computes."""
        there: list[str] = []

        def some(*tensors: Any) -> list[Any]:
            values = dict(zip(names, self._function.tensors(tensors, names), strict=True))
            there.extend(name for name, value in values.items() if value is not None)
            return [values[name] for name in there]

        traced = tf.function(some, input_signature=self._function.specs(), autograph=False).get_concrete_function()
        return dict(zip(there, self._run(traced, fed), strict=True))


def _in_32_bits(array: np.ndarray) -> np.ndarray:
    """Whole numbers that stand for "to the end", as an import has them."""
    if array.dtype != np.int64:
        return array
    return np.where((array >= SENTINEL) | (array <= -SENTINEL), np.clip(array, INT32.min, INT32.max), array)


def excess(expected: np.ndarray, found: np.ndarray, span: float = SPAN, floor: float = 0.0) -> float:
    """How far `found` is off, in parts of what rounding alone is allowed, at least `floor`: above 1 it computes
    something else."""
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    if expected.dtype.kind in "biu":
        return float((expected != found).mean()) / TIES
    e, f = expected.astype(np.float64), found.astype(np.float64)
    usual = np.isfinite(e)
    if not np.array_equal(e[~usual], f[~usual], equal_nan=True) or not np.isfinite(f[usual]).all():
        return float("inf")
    e, f = e[usual], f[usual]
    if not e.size:
        return 0.0
    allowed = max(floor, span * np.ptp(e) + span / 10 * np.abs(e).max())
    off = float(np.abs(e - f).max())
    return off / allowed if allowed else float("inf") if off else 0.0
