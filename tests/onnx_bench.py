"""Runs cases of `onnx_backend_tests` through our importer, TensorFlow's converter and LiteRT, in a child.

`Bench().outcome(name)` asks the child, which is this file run as a program: names come in, JSON goes out, a line each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np
from onnx_backend_tests import Case, backend_cases
from onnx_models import answers, difference, run_tflite, to_tflite

# parts of an output's largest value. float32: sums of up to 10^3 terms, each rounded by 6e-8. float16 has 11 bits and
# bfloat16 8, half a step is 5e-4 and 4e-3; both sides round, some more than once
TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "float16": 2e-3, "bfloat16": 1.6e-2}
LARGEST = np.finfo(np.float32).max
LIMIT_S = 120.0  # of one case, on a loaded machine: the slowest takes 8 s alone
START_S = 300.0  # until the child has built all cases
CASES_OF_A_CHILD = 400  # TensorFlow keeps some of every graph that it has seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a case.

    Attributes:
        result: "right"; "refused" by our importer or by TensorFlow's converter; "range": float64 is computed in
            float32, which cannot hold the values of the case; "disputed": LiteRT answers as ONNX Runtime does, and not
            as recorded; "wrong": something else than either; "crash": the child ended, or did not answer in LIMIT_S.
        constants: It is right only with every input but the first as a constant, as exporters write most of them.
        why: What was refused, what differs, or how the child ended.
    """

    case: str
    result: str
    constants: bool = False
    why: str = ""
    seconds: float = 0.0


class Bench:
    """Owns the child. Close it, or use it in a `with`."""

    def __init__(self) -> None:
        self._child: _Child | None = None
        self._asked = 0

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        if self._child:
            self._child.end()
        self._child, self._asked = None, 0

    def outcome(self, name: str) -> Outcome:
        if self._asked >= CASES_OF_A_CHILD:
            self.close()
        self._child = self._child or _Child()
        self._asked += 1
        outcome = self._child.ask(name)
        if outcome.result == "crash":
            self.close()
        return outcome


class _Child:
    def __init__(self) -> None:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._read, daemon=True).start()
        if self._line(START_S).strip() != "ready":
            self.end()
            raise RuntimeError(f"{__file__} does not start: run it by hand")

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _line(self, limit_s: float) -> str:
        try:
            return self._lines.get(timeout=limit_s)
        except Empty:
            return ""

    def ask(self, name: str) -> Outcome:
        began = time.monotonic()
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        line = self._line(LIMIT_S)
        if line:
            return Outcome(**json.loads(line))
        seconds = round(time.monotonic() - began, 1)
        how = "no answer" if seconds >= LIMIT_S else f"the process ended with {self._process.wait(10)}"
        return Outcome(case=name, result="crash", why=how, seconds=seconds)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # TensorFlow and its converter print
    cases = {case.name: case for case in backend_cases()}
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(judged(cases[line.strip()]))), file=answers, flush=True)


def judged(case: Case) -> Outcome:
    """As the model is; where that is refused, with constants."""
    began = time.monotonic()
    outcome = attempt(case)
    if outcome.result == "refused" and len(case.inputs) > 1 and attempt(with_constants(case)).result == "right":
        outcome = replace(outcome, result="right", constants=True, why="")
    return replace(outcome, seconds=round(time.monotonic() - began, 2))


def attempt(case: Case) -> Outcome:
    try:
        found = run_tflite(to_tflite(case.model), case.inputs)
    except Exception as e:
        return Outcome(case=case.name, result="refused", why=reason(e))
    wrong = differences(case.outputs, found)
    if wrong and beyond_float32(case):
        return Outcome(case=case.name, result="range", why="float64 values beyond the range of float32")
    if wrong and not disputed(case, found):
        return Outcome(case=case.name, result="wrong", why=wrong)
    return Outcome(
        case=case.name, result="disputed" if wrong else "right", why="as ONNX Runtime, not as recorded" if wrong else ""
    )


def disputed(case: Case, found: list[Any]) -> bool:
    """Whether ONNX Runtime answers as `found`."""
    names = [value.name for value in case.model.graph.input]
    try:
        return not differences(answers(case.model, dict(zip(names, case.inputs, strict=False))), found)
    except Exception:  # it lacks the operator, or refuses the model
        return False


def beyond_float32(case: Case) -> bool:
    values = [v for v in (*case.inputs, *case.outputs) if getattr(v, "dtype", None) == np.float64]
    return any(np.any(np.abs(v[np.isfinite(v)]) > np.finfo(np.float32).max) for v in values)


def reason(error: Exception) -> str:
    """In a line. TensorFlow's converter says it in the lines after "error: "."""
    text = str(error)
    found = [line.split("error: ")[1] for line in text.splitlines() if "error: " in line]
    if found:
        return "TensorFlow's converter: " + " | ".join(dict.fromkeys(found))[:400]
    kind = "" if "edgeloop" in type(error).__module__ else f"{type(error).__name__}: "
    return kind + " ".join(text.split())[:400]


def with_constants(case: Case) -> Case:
    """Every input but the first becomes an initializer."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    pairs = list(zip(list(model.graph.input), case.inputs, strict=False))
    fixed = {v.name: value for v, value in pairs[1:] if isinstance(value, np.ndarray | np.generic)}
    for name, value in fixed.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    kept = [(v, value) for v, value in pairs if v.name not in fixed]
    del model.graph.input[:]
    model.graph.input.extend(v for v, _ in kept)
    return replace(case, model=model, inputs=[value for _, value in kept])


def differences(expected: list[Any], found: list[Any]) -> str:
    """What differs, "" if nothing does. The tensors of a sequence come one after the other."""
    flat = [v for value in expected for v in (value if isinstance(value, list) else [value])]
    if len(flat) != len(found):
        return f"{len(found)} outputs, expected {len(flat)}"
    pairs = enumerate(zip(flat, found, strict=True))
    said = [f"output {i}: {what}" for i, (e, f) in pairs if (what := differs(np.asarray(e), np.asarray(f)))]
    return "; ".join(said)[:400]


def differs(expected: Any, found: Any) -> str:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"{found.dtype}{list(found.shape)}, expected {expected.dtype}{list(expected.shape)}"
    if expected.dtype.kind not in "fV":
        unequal = int((expected != found).sum())
        return f"{unequal} of {expected.size} values differ" if unequal else ""
    if expected.dtype == np.float32:  # LiteRT's XNNPACK adds within the range of float32: -inf becomes -3.4e38
        expected, found = (np.clip(v, -LARGEST, LARGEST) for v in (expected, found))
    error = difference(expected, found)
    return f"off by {error:.2g} of the largest value" if error > TOLERANCE[expected.dtype.name] else ""


if __name__ == "__main__":
    main()
