"""What a host asks the agent that runs a model, and what the agent replies. Both ends import these.

Payloads are a NumPy .npz of named arrays, or nothing. What a time is: one invoke of the runtime, its inputs in place
before and its outputs copied out after. Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edgeloop.processes.messages import EmptyReply, Request
from edgeloop.runtime.agent.machine.sysfs import UNKNOWN
from edgeloop.runtime.agent.push import PushRequest


@dataclass(frozen=True)
class ProbeReply:
    """The runtime, once it has loaded, and the machine it is on. A page and TF.js in Node know the first two alone.

    Attributes:
        version: Of the runtime; of the browser where that is one.
        tensorflow: Whether TensorFlow was imported.
        capabilities: machine/capabilities.py.
        backend: Of TF.js.
    """

    runtime: str
    version: str | None
    python: str | None = None
    machine: str | None = None
    cpus: int | None = None
    tensorflow: bool = False
    capabilities: Mapping[str, Any] | None = None
    backend: str | None = None


@dataclass(frozen=True)
class ProbeRequest(Request[ProbeReply]):
    """Load the runtime and say what it is."""

    OP: ClassVar[str] = "probe"
    REPLY: ClassVar[type] = ProbeReply


@dataclass(frozen=True)
class PrepareReply:
    """A loaded model.

    Attributes:
        signatures: {name: {inputs, outputs: {tensor: {shape (null where free), dtype}}}}; None: a page does not tell.
        arena_bytes: Planned for tensors, or "unknown".
        delegated: Indices of the operators the delegate took; None without one.
    """

    load_ms: float
    import_ms: float = 0.0
    signatures: Mapping[str, Any] | None = None
    arena_bytes: int | str = UNKNOWN
    delegated: Sequence[int] | None = None


@dataclass(frozen=True)
class PrepareRequest(Request[PrepareReply]):
    """Load the model at `path`, relative to the agent's root.

    Attributes:
        keep: Its inner tensors, for `tensors`.
        delegate: {library: "edgetpu", or a library's name or path there; options: {key: value}; allow_cpu_ops: false}.
    """

    OP: ClassVar[str] = "prepare"
    REPLY: ClassVar[type] = PrepareReply
    path: str
    threads: int = 1
    keep: bool = False
    delegate: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class RunReply:
    """The times of each run, in order; the payload holds the outputs of the last.

    Attributes:
        cpu_ms: Of all threads of the agent together.
        started_s: When each began, in seconds since the agent's first run.
        involuntary_switches: How often the kernel took the CPU away, warm-up included; None: unknown.
        rss_bytes: Of the agent after the last run; None: unknown. `rss_peak_bytes`: since its start.
    """

    wall_ms: Sequence[float]
    cpu_ms: Sequence[float] = ()
    started_s: Sequence[float] = ()
    involuntary_switches: int | None = None
    rss_bytes: int | None = None
    rss_peak_bytes: int | None = None


@dataclass(frozen=True)
class RunRequest(Request[RunReply]):
    """Run a signature `warmup` + `runs` times on the inputs in the payload. None: the file has only one."""

    OP: ClassVar[str] = "run"
    REPLY: ClassVar[type] = RunReply
    signature: str | None = None
    warmup: int = 0
    runs: int = 1


@dataclass(frozen=True)
class SelfCheckReply:
    """One pass over the reference inputs.

    Attributes:
        parity: Records as compare.py writes them, one an output; none where the bundle has no reference.
        wrong: Why the outputs are not right; None: they are.
        wall_ms: Of each run.
        rss_peak_bytes: Of the agent since its start; None: unknown.
    """

    parity: Sequence[Mapping[str, Any]]
    wrong: str | None
    wall_ms: Sequence[float]
    rss_peak_bytes: int | None = None


@dataclass(frozen=True)
class SelfCheckRequest(Request[SelfCheckReply]):
    """Run the reference inputs of the bundle in the agent's root through the model, which is that `variant` of it.

    Attributes:
        first: One run alone, before the first pass.
    """

    OP: ClassVar[str] = "self_check"
    REPLY: ClassVar[type] = SelfCheckReply
    variant: str
    first: bool = False


@dataclass(frozen=True)
class ConditionsReply:
    """Governor, clock, temperature, throttling, load: each a value or "unknown" (machine/conditions.py)."""

    conditions: Mapping[str, Any]


@dataclass(frozen=True)
class ConditionsRequest(Request[ConditionsReply]):
    """What the device's speed depends on now."""

    OP: ClassVar[str] = "conditions"
    REPLY: ClassVar[type] = ConditionsReply


@dataclass(frozen=True)
class ProfileReply:
    """The time of each operator.

    Attributes:
        ops: [{index, graph, name, delegated, calls, mean_us, p50_us, share}], or "unsupported".
        source: Whose profiler it was.
        kernels: "xnnpack" or "builtin".
        why: Why there are none, or why other kernels answered than those that were asked for; empty: as asked.
        run_us: Mean of a whole run; `invoke_us` of the invoke in it, `ops_us` of all operators.
    """

    ops: Sequence[Mapping[str, Any]] | str
    source: str
    kernels: str | None = None
    why: str = ""
    runs: int = 0
    run_us: float | None = None
    invoke_us: float | None = None
    ops_us: float | None = None


@dataclass(frozen=True)
class ProfileRequest(Request[ProfileReply]):
    """Time the operators of the loaded .tflite in `runs` runs of their own (profiler.py)."""

    OP: ClassVar[str] = "profile"
    REPLY: ClassVar[type] = ProfileReply
    signature: str | None = None
    runs: int = 100
    xnnpack: bool = True


@dataclass(frozen=True)
class LoadgenReply:
    """LoadGen's version and figures; the payload holds the times of each query (loadgen.py)."""

    version: str
    results: Mapping[str, Any]


@dataclass(frozen=True)
class LoadgenRequest(Request[LoadgenReply]):
    """Let LoadGen issue `queries` queries of `samples` samples; `calls` calls of the model answer one."""

    OP: ClassVar[str] = "loadgen"
    REPLY: ClassVar[type] = LoadgenReply
    signature: str | None
    scenario: str
    queries: int
    samples: int
    calls: int


@dataclass(frozen=True)
class TensorsRequest(Request[EmptyReply]):
    """Run once; the reply's payload holds the inner tensors `indices` of `graph`, by index. Needs `keep`."""

    OP: ClassVar[str] = "tensors"
    REPLY: ClassVar[type] = EmptyReply
    signature: str | None
    graph: int
    indices: Sequence[int]


@dataclass(frozen=True)
class RuntimesReply:
    """{runtime: version} of those that are installed; none was loaded."""

    runtimes: Mapping[str, str]
    python: str | None = None


@dataclass(frozen=True)
class RuntimesRequest(Request[RuntimesReply]):
    """Which runtimes the device has: the only request to `survey`."""

    OP: ClassVar[str] = "runtimes"
    REPLY: ClassVar[type] = RuntimesReply


REQUESTS: tuple[type[Request], ...] = (
    ProbeRequest,
    PushRequest,
    PrepareRequest,
    RunRequest,
    SelfCheckRequest,
    ConditionsRequest,
    ProfileRequest,
    LoadgenRequest,
    TensorsRequest,
)
