"""What each operator of a .tflite takes, by LiteRT's own profiler. Python 3.9 syntax.

The profiler belongs to LiteRT's `CompiledModel`, which runs a model with the same kernels as `Interpreter` does. Only
the versions whose C interface was checked are spoken to; of any other the answer is "unsupported".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeloop.errors import TargetError
from edgeloop.runtime.agent.machine.sysfs import UNSUPPORTED

if TYPE_CHECKING:
    import numpy as np

    from edgeloop.runtime.agent.litert_c import CompiledModel

VERIFIED = ("2.3.0",)  # of ai-edge-litert: litert_c.py
OPERATOR, INSIDE_DELEGATE, OF_DELEGATE = 2, 4, 8  # LiteRtProfilerEventType of what is one operator
INVOKE = ("Invoke", 1)  # name and kind of the event that spans all operators
CONTAINERS = ("WHILE", "IF", "CALL", "CALL_ONCE")  # the operators in their graphs have events of their own
WARMUP = 3
XNNPACK, BUILTIN = "xnnpack", "builtin"  # LiteRT's names of kernel modes
# cpuinfo reads /sys/devices/system/cpu/{possible,present}; a folder that is somebody's root may be without /sys
NO_XNNPACK = "XNNPACK does not start there, so these are LiteRT's own kernels, as in its runs; is /sys mounted?"


def unsupported(why: str) -> dict[str, Any]:
    """The answer where nobody has an operator's time."""
    return {"ops": UNSUPPORTED, "source": UNSUPPORTED, "why": why}


def profile(
    package: str, path: str, signature: str, inputs: Mapping[str, np.ndarray], runs: int, threads: int, xnnpack: bool
) -> dict[str, Any]:
    """Load the model anew and run it `runs` times; `package` is the folder of ai_edge_litert.

    With XNNPACK an operator is one of XNNPACK's own, with its own index and name: it fuses some and splits others.
    Without it, an operator is one of the model's, and runs on the slower kernels of the runtime itself. Where XNNPACK
    does not start, these are the ones that answer, and "why" says so.

    Returns:
        {ops: [{index, graph, name, delegated, calls, mean_us, p50_us, share}], in the order they ran; kernels:
        "xnnpack" or "builtin"; why: where these are not the kernels that were asked for; runs; run_us: mean of a whole
        run; invoke_us: of that, in the interpreter; ops_us: of that, in operators}. Of one call the profiler counts
        whole microseconds, XNNPACK's operators rounded down. Where the machine is busy, means tell of interruptions
        too; p50_us (the lower median) does not.

    Raises:
        TargetError: LiteRT refuses the model or the inputs.
    """
    totals, run_us, invoke_us = Totals(), 0.0, 0
    with contextlib.ExitStack() as stack:
        model, kernels = _compiled(stack, xnnpack, package, path, signature, threads)
        model.feed(inputs)
        for _ in range(WARMUP):
            model.run()
        for _ in range(runs):
            model.start_profiler()
            start = time.perf_counter_ns()
            model.run()
            run_us += (time.perf_counter_ns() - start) / 1e3
            events = model.stop_profiler()
            invoke_us += sum(elapsed_us for name, kind, _, _, elapsed_us in events if (name, kind) == INVOKE)
            totals.add(events)
    answer = {
        "ops": totals.ops(),
        "kernels": kernels,
        "runs": runs,
        "run_us": run_us / runs,
        "invoke_us": invoke_us / runs,
        "ops_us": totals.whole_us() / runs,
    }
    return dict(answer, why=NO_XNNPACK) if xnnpack and kernels == BUILTIN else answer


def _compiled(
    stack: contextlib.ExitStack, xnnpack: bool, package: str, path: str, signature: str, threads: int
) -> tuple[CompiledModel, str]:
    """The model, and whose kernels it runs on.

    Where XNNPACK does not start, `Interpreter` takes the builtin kernels and says nothing; `CompiledModel` fails with
    status 3. Then what `Interpreter` runs there is timed.
    """
    from edgeloop.runtime.agent.litert_c import CompiledModel

    if xnnpack:
        with contextlib.suppress(TargetError):
            return CompiledModel(package, stack, path, signature, threads, XNNPACK), XNNPACK
    return CompiledModel(package, stack, path, signature, threads, BUILTIN), BUILTIN


class Totals:
    """The time of each call by operator, over runs."""

    def __init__(self) -> None:
        self.by_operator: dict[tuple[Any, ...], list[int]] = {}  # microseconds of each call

    def add(self, events: Sequence[tuple[str, int, int, int, int]]) -> None:
        """The events of one run: (name, kind, index, graph, microseconds) in order.

        XNNPACK numbers its operators from 0 in each partition, so the second 0 of a run is another partition's.
        """
        seen: dict[tuple[Any, ...], int] = {}
        for name, kind, index, graph, elapsed_us in events:
            if kind not in (OPERATOR, INSIDE_DELEGATE, OF_DELEGATE) or name in CONTAINERS:
                continue
            delegated = kind != OPERATOR
            key = (delegated, graph, index, name)
            partition = seen[key] = seen.get(key, -1) + 1
            self.by_operator.setdefault((*key, partition if delegated else 0), []).append(elapsed_us)

    def whole_us(self) -> int:
        """Of all operators over all runs."""
        return sum(sum(calls) for calls in self.by_operator.values())

    def ops(self) -> list[dict[str, Any]]:
        """As `profile` returns them; where all were too short to count, each has a share of 0."""
        whole_us = self.whole_us() or 1
        return [
            {
                "index": index,
                "graph": graph,
                "name": name,
                "delegated": delegated,
                "calls": len(calls),
                "mean_us": sum(calls) / len(calls),
                "p50_us": sorted(calls)[(len(calls) - 1) // 2],
                "share": sum(calls) / whole_us,
            }
            for (delegated, graph, index, name, _), calls in self.by_operator.items()
        ]
