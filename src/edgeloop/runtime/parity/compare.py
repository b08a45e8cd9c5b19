"""Two outputs in, how far they differ out; and how far they may. Here, so that a device can check itself.

SNR in dB is 10 log10(sum ref^2 / sum (ref - out)^2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.runtime.parity.answers import filled_like
from edgeloop.runtime.parity.metrics import Scores, Task, scores, task_of

# What float32 rounds at 1 (2^-23), four times. It is no noise for outputs that end in a sigmoid or softmax, however
# small they are: a detector that finds nothing answers 5e-8, one that hears no speech 3e-5, both off by 1e-7. Of any
# other output it may be all there is: a model of tiny weights whose float16 form answers zeros.
ROUNDING = 5e-7
# What float32 may be off by where such an output is undecided, that is farther than DECIDED from both 0 and 1: rounding
# grows on the way to a softmax (a reader of text: 1.9e-5 at one character of noise, at 109 dB over all).
UNDECIDED, DECIDED = 5e-5, 0.01
LIMIT_DB = 200.0  # of what is garbage beyond measure: JSON has no infinity


@dataclass(frozen=True)
class Floor:
    """What a scheme must reach. `max_abs` is relative to max(1, the largest reference); None: SNR alone decides.

    `top1` is the share of samples whose class agrees; one sample may always differ, for one of few is no rate.
    `bounded`: outputs of which an error of at most ROUNDING passes whatever the SNR, and one of UNDECIDED is not too
    large where the reference lies between DECIDED and 1 - DECIDED.
    """

    snr_db: float
    max_abs: float | None = None
    top1: float = 0.0
    bounded: Collection[str] = ()


# float32: reordered sums of unit-scale terms differ by some 1e-7 a step; 1e-5 leaves room for 100 of them, and 100 dB
#   is that same 1e-5 as a mean.
# float16: 11 bits of mantissa round each weight by at most 2^-12, -72 dB; measured 66 dB on the digits model and 53.9
#   on ResNet8, where errors add up over layers. 40 dB leaves that growth two more decades of power less than garbage.
# dynamic, int16x8, int8: half a step of 1/127 is -53 dB for one uniform tensor; 20 layers in series and ranges set by
#   extremes cost 20 to 35 dB (ResNet8: dynamic 28.4, int16x8 25.9 with the same int8 weights, int8 20.0). Below 10 dB a
#   tenth of the output's power is error, and garbage (a lost scale, a wrong granularity) measured 0.6 and -2.9 dB.
# int4: half a step of 1/7 is -28 dB for one tensor, so few models have 10 dB left after many layers. It gets no mercy
#   for that: ResNet8 in int4 (4.1 dB) gave another class than its source for 30% of real images, while its accuracy on
#   them went up by 4 points by luck. Neither figure alone may let a variant pass.
# mixed: some operators of the schemes above, so what holds for all of them.
FLOORS = {
    Scheme.FLOAT32: Floor(snr_db=100.0, max_abs=1e-5, top1=0.99),
    Scheme.FLOAT16: Floor(snr_db=40.0, top1=0.97),
    Scheme.DYNAMIC: Floor(snr_db=12.0, top1=0.85),
    Scheme.INT16X8: Floor(snr_db=12.0, top1=0.85),
    Scheme.INT8: Floor(snr_db=10.0, top1=0.85),
    Scheme.INT4: Floor(snr_db=10.0, top1=0.85),
    Scheme.MIXED: Floor(snr_db=10.0, top1=0.85),
}


def floor_of(scheme: Scheme, min_snr_db: float | None = None, bounded: Collection[str] = ()) -> Floor:
    """The floor of a scheme. `min_snr_db` raises that of a quantized one, and never lowers any. `bounded`: outputs that
    end in a sigmoid or softmax."""
    floor = replace(FLOORS[scheme], bounded=bounded)
    if min_snr_db is None or scheme is Scheme.FLOAT32:
        return floor
    return replace(floor, snr_db=max(floor.snr_db, min_snr_db))


def judged_as(scheme: Scheme, source: Mapping[str, str]) -> Scheme:
    """The scheme whose floor a variant is held to. `source` is what the manifest says of the original.

    An original that rounds values to 8 bits itself does so on either side of a tie, as the noise of a sum
    has it: one step at a few values, 46 to 54 dB for a net with many ties. Its float32 is held to float16's floor.
    One that takes the scale of its steps from the values of every call is one of the scheme dynamic: a step that falls
    the other way moves the scales behind it (ONNX Runtime's own answers of a reader of text move by 43 to 32 dB when
    its inputs move by 1e-7 to 1e-4 of them).
    """
    rounds = source.get("rounds")
    if rounds == Scheme.DYNAMIC.value and scheme in (Scheme.FLOAT32, Scheme.FLOAT16):
        return Scheme.DYNAMIC
    return Scheme.FLOAT16 if scheme is Scheme.FLOAT32 and rounds else scheme


def rounds_itself(source: Mapping[str, str]) -> bool:
    """Whether the original rounds values to 8 bits, by what the manifest says of it."""
    return "rounds" in source


def bounded_outputs(source: Mapping[str, str]) -> tuple[str, ...]:
    """Outputs that lie in 0..1 by construction, by what the manifest says of the original."""
    return tuple(filter(None, source.get("bounded", "").split(",")))


@dataclass(frozen=True)
class RunContext:
    """Which variant ran, in what, on which device (a label without a path)."""

    variant: str
    runtime: str
    runtime_version: str | None = None
    device: str = "local"


@dataclass(frozen=True)
class Parity:
    """One output of one variant on one runtime of one device against the source.

    Attributes:
        samples: How many were compared.
        max_abs: The largest float32 where there was nothing to compare.
        snr_db: None: exact.
        accuracy: 0 to 1, of the variant's own answers; None without labels. So are `top5`, `auc`, `mae`, `rmse` and
            `r2`: metrics.py has them.
        error: Why there was nothing to compare: refused, crashed, no such output, another shape, NaN.
        worst_layer: Of a .tflite that fails: the operator that loses most, as `worst_layer.py` names it.
    """

    variant: str
    runtime: str
    runtime_version: str | None
    device: str
    output: str
    samples: int
    max_abs: float
    max_rel: float
    snr_db: float | None
    top1_agreement: float | None
    accuracy: float | None
    passed: bool
    error: str | None = None
    worst_layer: str | None = None
    top5: float | None = None
    auc: float | None = None
    mae: float | None = None
    rmse: float | None = None
    r2: float | None = None


def compare(
    where: RunContext,
    floor: Floor,
    expected: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    label_output: str | None = None,
    classifier: bool = False,
) -> list[Parity]:
    """One record an output. An output that is missing, of another shape or not finite fails, saying so.

    `labels` [n, ...] are for `label_output`, or for the one output of a model that has no other.
    """
    task, labelled = label_task(expected, labels, label_output), label_output or next(iter(expected))
    rows = []
    for name, reference in expected.items():
        value = filled_like(np.asarray(got[name]), reference) if name in got else None
        error = _nothing_to_compare(reference, value)
        if value is None or error:
            rows.append(_failed(where, name, reference, error))
        else:
            own = Scores()
            if task is not None and labels is not None and name == labelled:
                own = scores(task, value, labels)
            rows.append(_row(where, floor, name, reference, value, own, classifier))
    return rows


def label_task(
    expected: Mapping[str, np.ndarray], labels: np.ndarray | None, label_output: str | None = None
) -> Task | None:
    """What the labels say that a source with these answers does; None: no labels, several outputs and none of them
    named, or no fit."""
    if labels is None or (label_output is None and len(expected) != 1) or label_output not in (None, *expected):
        return None
    return task_of(expected[label_output or next(iter(expected))], labels)


def failed(where: RunContext, expected: Mapping[str, np.ndarray], error: str) -> list[Parity]:
    """The records of a variant that did not run at all."""
    return [_failed(where, name, reference, error) for name, reference in expected.items()]


def is_classifier(expected: Mapping[str, np.ndarray], labelled: bool) -> bool:
    """One output [n, classes], and either labels for it or rows that are probabilities."""
    if len(expected) != 1:
        return False
    (output,) = expected.values()
    if output.ndim != 2 or output.shape[1] < 2 or output.dtype.kind != "f":
        return False
    return labelled or bool((output >= 0).all() and np.allclose(output.sum(-1), 1, atol=1e-3))


def classifies(expected: Mapping[str, np.ndarray], labels: np.ndarray | None) -> bool:
    """Whether the source is a classifier, by its answers and by what the labels mean."""
    task = label_task(expected, labels)
    return is_classifier(expected, task is not None and task.classifies)


def reason(row: Parity) -> str:
    """One record in words: what is wrong with it, or how well it agrees."""
    if row.error:
        return row.error
    snr = "exact" if row.snr_db is None else f"SNR {row.snr_db:.1f} dB"
    agree = "" if row.top1_agreement is None else f", top-1 agreement {row.top1_agreement:.1%}"
    blame = f"; worst layer {row.worst_layer}" if row.worst_layer else ""
    return f"output {row.output!r} has {snr}, max abs error {row.max_abs:.3g}{agree}{blame}"


def _nothing_to_compare(reference: np.ndarray, value: np.ndarray | None) -> str | None:
    if value is None:
        return "no such output"
    if value.shape != reference.shape:
        return f"the output has shape {list(value.shape)}, expected {list(reference.shape)}"
    if not reference.size:
        return "the output is empty for every sample, so nothing was compared"
    if reference.dtype.kind == "f" and np.isnan(reference).any():  # sizes that depend on the values: answers.py
        if not np.array_equal(np.isfinite(value), np.isfinite(reference)):
            return "the output has another size than the source's, or holds NaN"
    elif not np.isfinite(value).all():
        return "the output holds NaN or infinity"
    return None


def _failed(where: RunContext, output: str, reference: np.ndarray, error: str | None) -> Parity:
    most = float(np.finfo(np.float32).max)  # JSON has no infinity
    return Parity(
        **asdict(where),
        output=output,
        samples=len(reference),
        max_abs=most,
        max_rel=most,
        snr_db=-LIMIT_DB,
        top1_agreement=None,
        accuracy=None,
        passed=False,
        error=error,
    )


def _row(
    where: RunContext,
    floor: Floor,
    output: str,
    reference: np.ndarray,
    value: np.ndarray,
    own: Scores,
    classifier: bool,
) -> Parity:
    r, v = reference.astype(np.float64), value.astype(np.float64)
    if np.isnan(r).any():  # what fills up sizes that depend on the values
        r, v = np.nan_to_num(r), np.nan_to_num(v)
    error = np.abs(r - v)
    largest = float(np.max(np.abs(r), initial=0.0))
    max_abs = float(error.max(initial=0.0))
    # a reference of zeros has no power of its own: its noise is then measured against one unit an element
    snr = snr_db(float(np.sum(np.square(r))) or float(r.size), float(np.sum(np.square(error))))
    same = int(np.sum(r.argmax(-1) == v.argmax(-1))) if classifier else len(r)
    passed = (
        (snr is None or snr >= floor.snr_db or (max_abs <= ROUNDING and output in floor.bounded))
        and (floor.max_abs is None or bool(np.all(error <= _allowed(floor.max_abs, r, output in floor.bounded))))
        and len(r) - same <= max(1.0, (1 - floor.top1) * len(r))
    )
    return Parity(
        **asdict(where),
        output=output,
        samples=len(r),
        max_abs=max_abs,
        max_rel=max_abs / max(largest, 1e-12),
        snr_db=snr,
        top1_agreement=same / max(1, len(r)) if classifier else None,
        passed=passed,
        **asdict(own),
    )


def _allowed(max_abs: float, reference: np.ndarray, bounded: bool) -> np.ndarray:
    """The largest error of each element."""
    limit = max_abs * max(1.0, float(np.max(np.abs(reference), initial=0.0)))
    undecided = bounded & (reference > DECIDED) & (reference < 1 - DECIDED)
    return np.where(undecided, max(UNDECIDED, limit), limit)


def snr_db(power: float, noise: float) -> float | None:
    """10 log10(power / noise), between -200 and 200; None where there is no noise."""
    if noise == 0:
        return None
    return float(np.clip(10 * np.log10(max(power, 1e-300) / min(noise, 1e300)), -LIMIT_DB, LIMIT_DB))
