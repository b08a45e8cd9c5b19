"""A plan and its turns, with agents that are made up: what they are asked, in which order, and what the records say."""

import contextlib
import itertools
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import Format
from edgeloop.edge.measure import bench as module
from edgeloop.edge.measure.bench import bench
from edgeloop.edge.measure.bench_plan import BenchOptions, plan_candidates
from edgeloop.edge.measure.bench_records import Bench
from edgeloop.edge.measure.bench_targets import BenchTarget
from edgeloop.edge.measure.latency_tables import latency_table, notes, overview, ratio_table, start_table, telling
from edgeloop.edge.measure.prepared_model import ENTRY, QUERIES_A_TURN, free_sizes, query_and_inputs, with_sizes
from edgeloop.edge.measure.profile import with_shapes
from edgeloop.edge.measure.scenarios import Driver, Scenario
from edgeloop.errors import DeviceError, MissingExtra, OptionsError, TargetError
from edgeloop.files.flatbuffer import Graph, Operator, Tensor
from edgeloop.runtime.agent.protocol import LoadgenRequest, PrepareReply, ProbeReply
from edgeloop.runtime.client import RunResult
from edgeloop.runtime.device import BROWSER, Device

QUIET = {"throttled": False, "throttled_flags": []}


@dataclass
class Lab:
    """Devices made up: what they answer, and what they were asked."""

    calls: list = field(default_factory=list)  # ("open" | "run" | "close", variant, runtime, device, runs)
    open: set = field(default_factory=set)
    most_open: int = 0
    open_in_turns: set = field(default_factory=set)
    lacks: tuple = ()  # (runtime, device) without it
    refuses: tuple = ()  # variants
    unreachable: tuple = ()  # devices
    emulated: bool = False
    delegates: list = field(default_factory=list)
    readings: object = field(default_factory=lambda: itertools.repeat(QUIET))
    cpu_share: float | None = 1.0  # None: a page, which does not tell
    switches: object = 2  # in each answer
    cold: int = 0  # of the calls that do not begin a turn, this many are slow at first

    @contextlib.contextmanager
    def agent(self, device, runtime, folder, timeout_s):
        if device.name in self.unreachable:
            raise DeviceError(f"cannot reach {device.name}: no route to host.")
        one = Fake(self, runtime, device.name)
        self.open.add(one)
        self.most_open = max(self.most_open, len(self.open))
        try:
            yield one
        finally:
            self.open.discard(one)


@dataclass(eq=False)
class Fake:
    lab: Lab
    runtime: str
    device: str
    clock_s: float = 0.0
    variant: str = ""
    turned: int = 0  # calls in turns so far

    def conditions(self):
        return next(self.lab.readings)

    def request(self, request, payload, refused):
        assert isinstance(request, LoadgenRequest)
        raise MissingExtra("LoadGen does not load. Run there: pip install mlcommons-loadgen")

    def probe(self, refused):
        if (self.runtime, self.device) in self.lab.lacks:
            raise refused(f"{self.runtime} on {self.device}: probe failed with ModuleNotFoundError: none")
        return ProbeReply(self.runtime, "1.0", capabilities={"emulated": self.lab.emulated})

    def prepare(self, entry, threads, delegate):
        self.variant = Path(entry).stem
        self.lab.delegates.append(delegate)
        if self.variant in self.lab.refuses:
            raise TargetError(f"{self.runtime} on {self.device}: prepare failed with ValueError: no such operator")
        specs = {"x": {"shape": [None, 3], "dtype": "float32"}}
        signatures = {"infer": {"inputs": specs, "outputs": specs}}
        return PrepareReply(2.0, 1.0, signatures, 77, None if delegate is None else [0, 2])

    def profile(self, inputs, signature, runs):
        self.lab.calls.append((self.variant, self.runtime, self.device, "profile"))
        raise TargetError("no library.")

    def run(self, inputs, signature, runs):
        self.lab.calls.append((self.variant, self.runtime, self.device, runs, inputs["x"].shape[0]))
        started = tuple(self.clock_s + 0.001 * k for k in range(runs))
        self.clock_s += 0.001 * runs
        in_turn = ()
        if runs == ENTRY + QUERIES_A_TURN:
            in_turn = tuple(3.0 if self.turned + k < self.lab.cold else 1.0 for k in range(QUERIES_A_TURN))
            self.turned += QUERIES_A_TURN
            self.lab.open_in_turns.add(len(self.lab.open))
        times = (9.0,) * min(ENTRY, runs) + (in_turn or (1.0,) * max(0, runs - ENTRY))
        cpu = () if self.lab.cpu_share is None else tuple(self.lab.cpu_share * t for t in times)
        return RunResult(times, cpu, started, self.lab.switches, 1000, 2000, outputs={})


@pytest.fixture
def lab(monkeypatch):
    made = Lab()
    monkeypatch.setattr("edgeloop.runtime.runners.agent", made.agent)
    return made


def target(name, format=Format.TFLITE):
    return BenchTarget(variant=name, folder=Path(), entry=f"{name}.tflite", format=format, bytes=1, sha256="0" * 64)


HERE, THERE = Device("here", Path("python")), Device("there", Path("python"))
A, B = target("a"), target("b")


def options(**fields):
    return BenchOptions(**{"devices": (HERE,), "runtimes": ("litert",), "runs": 50, **fields})


def test_in_every_round_each_pair_has_one_turn_in_random_order(lab):
    result = bench([A, B, target("c")], options())
    turns = [call[0] for call in lab.calls if call[3] == ENTRY + QUERIES_A_TURN]
    rounds = [tuple(turns[i : i + 3]) for i in range(0, 30, 3)]
    assert len(turns) == 30 and all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) > 1  # of 6 orders, ten rounds in the same one: 6 ** -9
    lab.calls.clear()
    assert bench([A, B, target("c")], options()).ratios == result.ratios  # the seed decides


def test_calls_that_begin_a_turn_are_kept_and_counted_in_no_figure(lab):
    (record,) = bench([A], options()).records
    assert record.entry_ms == (9.0,) * ENTRY * 10
    assert record.wall_ms == (1.0,) * 50 and record.p50_ms == 1.0
    assert len(record.warmup_ms) == 10 and record.first_ms == 9.0
    assert (record.import_ms, record.load_ms, record.arena_bytes, record.delegated) == (1.0, 2.0, 77, None)
    assert (record.rss_bytes, record.rss_peak_bytes) == (1000, 2000)
    assert record.involuntary_switches == 20  # 2 in each of 10 turns
    lab.switches = None
    assert bench([A], options()).records[0].involuntary_switches is None


def test_figures_are_those_of_the_steady_runs_and_every_sample_is_kept(lab):
    lab.cold = 40
    (record,) = bench([A], options(runs=130)).records
    assert record.steady.reached and record.steady.start == 40
    assert record.wall_ms == (3.0,) * 40 + (1.0,) * 90
    assert (record.p90_ms, record.cpu_p50_ms, record.p95_ms) == (1.0, 1.0, None)  # 90 runs: no p95
    assert (record.percentile_runs, record.p90_interval_ms) == (90, (1.0, 1.0))
    lab.cold = 90  # too late: of all runs then
    (record,) = bench([A], options(runs=130)).records
    assert not record.steady.reached and (record.p50_ms, record.p95_ms) == (3.0, 3.0)


def test_by_default_a_p90_is_of_100_runs_at_least_wherever_the_steady_state_begins(lab):
    lab.cold = 100  # the latest that a steady state may begin: half of the runs
    record = bench([A], BenchOptions(devices=options().devices)).records[0]
    assert record.steady.start == 100 and record.percentile_runs >= 100


def test_a_ratio_is_of_the_turns_in_which_both_are_steady(lab):
    lab.cold = 40
    result = bench([A, B], options(runs=130))
    assert result.ratios[0].n == 26 - 8  # the first 8 of 26 turns were slow


def test_more_pairs_than_fit_are_measured_in_groups_that_share_the_first_one(lab):
    what = [target(name) for name in "abcdefg"]
    result = bench(what, options(together=3))
    assert lab.most_open == 3 and not lab.open
    assert [record.variant for record in result.records] == list("abcdefg")
    assert {record.n for record in result.records[1:]} == {50}
    assert result.records[0].n == 150  # a took part in three groups of two others
    assert all(ratio.to.variant == "a" and ratio.n == 10 and ratio.wall.ratio == 1.0 for ratio in result.ratios)
    small = module._groups(list(range(7)), 3, random.Random(1))
    assert [len(group) for group in small] == [3, 2, 2] and small[0][0] == 0
    assert sorted(itertools.chain(*small)) == list(range(7)) != list(itertools.chain(*small))


def test_a_device_that_slowed_itself_down_at_any_time_makes_its_records_invalid(lab):
    hot = {"throttled": True, "throttled_flags": ["frequency capped"]}
    lab.readings = itertools.chain([QUIET] * 5, [hot], itertools.repeat(QUIET))
    result = bench([A, B], options())
    for record in result.records:
        assert not record.valid and "throttled (frequency capped)" in record.invalid_because
        assert sum(reading["throttled"] for reading in record.conditions.during) == 1
    assert "invalid: the device was throttled" in latency_table(result.records).rows[0][-1]
    assert not result.ratios[0].valid and ratio_table(result).rows[0][-1] == "invalid"


def test_a_device_whose_state_nobody_knows_is_not_called_throttled(lab):
    lab.readings = itertools.repeat({"throttled": "unknown", "throttled_flags": "unknown"})
    assert bench([A], options()).records[0].valid


def test_conditions_are_read_before_between_and_after_the_turns(lab):
    counter = itertools.count()
    lab.readings = ({**QUIET, "at": next(counter)} for _ in itertools.count())
    (record,) = bench([A], options()).records
    seen = [r["at"] for r in (record.conditions.before, *record.conditions.during, record.conditions.after)]
    assert seen == list(range(1, 12))  # 0 was asked to know that the agent is up; ten turns have nine gaps


@pytest.mark.parametrize(
    ("cpu_share", "threads", "contended"),
    [(1.0, 1, False), (0.95, 1, False), (0.9, 1, True), (0.9, 4, True), (3.5, 4, "unknown"), (0.0, 1, "unknown")],
)
def test_runs_that_waited_are_contended(lab, cpu_share, threads, contended):
    lab.cpu_share = cpu_share  # wall over CPU: 1, 1.05, 1.11, ...
    result = bench([A, B], options(threads=threads))
    assert result.records[0].contended == contended
    assert ("contended" in latency_table(result.records).rows[0][-1]) is (contended is True)
    assert (result.ratios[0].cpu is None) is (cpu_share == 0.0)


def test_an_emulated_device_is_functional_only(lab):
    lab.emulated = True
    result = bench([A, B], options())
    assert result.records[0].functional_only and "functional only" in latency_table(result.records).rows[0][-1]
    assert result.ratios[0].functional_only and ratio_table(result).rows[0][-1] == "functional only"


def test_what_too_few_calls_support_is_named_or_no_column_and_a_note_says_why(lab):
    result = bench([A, B], options(runs=11))
    shown = latency_table(result.records)
    assert tuple(shown.columns) == ("variant", "p50 ms", "p90 ms", "CPU ms", "steady")
    assert shown.rows[0] == ("a", "1.00", "too few calls", "1.00", "not reached")
    assert notes(result.records) == [
        "Some rows have too few steady calls: p90 needs 64, p95 needs 130, p99 needs 662 calls. "
        "Measure more with --runs."
    ]
    assert "(too few blocks)" in ratio_table(result).rows[0][1]
    assert "p99 ms" in latency_table(bench([A], options(runs=662)).records).columns


def test_what_is_the_same_in_every_row_is_said_once(lab):
    result = bench([A, B], options())
    assert latency_table(result.records).title == (
        "single-stream: litert 1.0 on local:python, 1 thread, blocks of 5 calls after 10 warm-up calls, batch 1, "
        "inputs x 1×3, calls 50; compare times only within this table"
    )
    assert tuple(ratio_table(result).columns) == ("variant", "wall", "CPU")
    both = bench([A], options(runtimes=("litert", "tflite-runtime")))
    assert tuple(latency_table(both.records).columns)[:2] == ("variant", "runtime")
    assert tuple(start_table(both.records).columns)[:2] == ("variant", "runtime")


def test_how_many_operators_a_delegate_took_is_said(lab):
    records = bench([A, B], options(delegate="/opt/libnpu.so", runs=11)).records
    assert records[0].delegated == (0, 2)
    assert "litert 1.0 on local:python with libnpu.so" in latency_table(records).title
    assert "operators delegated 2;" in latency_table(records).title


def test_a_device_is_named_in_a_row_where_its_runtime_does_not_tell():
    one, other, third = ("litert", "here"), ("litert", "there"), ("onnxruntime", "there")
    assert telling([one, one]) == ["variant"]
    assert telling([one, third]) == ["variant", "runtime"]
    assert telling([one, other]) == ["variant", "device"]
    assert telling([one, other, third]) == ["variant", "runtime", "device"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0021, "0.00210"), (0.478, "0.478"), (3.75, "3.75"), (99.9, "99.9"), (3550.4, "3550"), (0, "0")],
)
def test_a_time_has_three_significant_digits(lab, value, text):
    (record,) = bench([A], options()).records
    assert latency_table([replace(record, p50_ms=value)]).rows[0][1] == text


def test_the_table_of_a_scenario_has_its_figure_and_who_asked(lab, monkeypatch):
    (record,) = bench([A], options(scenario=Scenario.OFFLINE)).records
    by_ours = overview(Bench(records=(record,), ratios=(), devices={}, host={}, seed=0))[2]
    assert "offline by MLPerf's rules, queries issued by edgeloop, too short for an MLPerf result" in by_ours.title
    assert "samples per query 50" in by_ours.title and tuple(by_ours.columns) == ("variant", "samples/s")
    driven = replace(record.outcome, metric="p90_ms", driver="loadgen 6.0", value=None, minimum_queries=64)
    by_loadgen = overview(Bench(records=(replace(record, outcome=driven),), ratios=(), devices={}, host={}, seed=0))[2]
    assert "queries issued by loadgen 6.0" in by_loadgen.title and by_loadgen.rows[0][-1] == "too few queries, needs 64"


def test_a_driver_that_a_device_lacks_is_said_before_anything_is_measured(lab):
    with pytest.raises(MissingExtra, match="pip install mlcommons-loadgen"):
        bench([A, B], options(driver=Driver.LOADGEN))
    assert not lab.open_in_turns and not lab.open


def test_profiles_are_taken_when_a_pair_has_had_its_last_turn(lab):
    bench([target(name) for name in "abcde"], options(together=3, profile=True))
    for name in "abcde":
        asked = [call[3] for call in lab.calls if call[0] == name]
        assert asked.index("profile") == len(asked) - 1


def test_a_named_device_that_cannot_be_reached_ends_the_plan(lab):
    lab.unreachable = ("there",)
    with pytest.raises(DeviceError, match="cannot reach there: no route to host"):
        bench([A], options(devices=(HERE, THERE)))
    assert not lab.open


def test_a_named_device_on_which_nothing_runs_ends_the_plan_with_the_reason(lab):
    lab.lacks = (("litert", "there"), ("tflite-runtime", "there"))
    with pytest.raises(DeviceError, match=r"there runs none of these files: litert on there: .*; tflite-runtime on"):
        bench([A], options(devices=(HERE, THERE), runtimes=()))


def test_a_runtime_that_was_not_named_may_be_missing_without_a_word(lab):
    lab.lacks = (("tflite-runtime", "here"),)
    result = bench([A], options(runtimes=()))
    assert [record.runtime for record in result.records] == ["litert"] and not result.notes


def test_a_named_runtime_that_runs_nowhere_is_an_error(lab):
    lab.lacks = (("tflite-runtime", "here"),)
    with pytest.raises(DeviceError, match=r"tflite-runtime runs none of these files: tflite-runtime on here: .*none"):
        bench([A], options(runtimes=("litert", "tflite-runtime")))
    lab.lacks, lab.refuses = (), ("b",)
    with pytest.raises(TargetError, match="b on onnxruntime was not measured"):
        bench([A, target("b", Format.ONNX)], options(runtimes=("litert", "onnxruntime")))


def test_what_cannot_be_profiled_was_still_measured(lab):
    result = bench([A], options(profile=True))
    assert result.records[0].profile is None and "a on litert has no profile: no library" in result.notes[0]


def test_a_named_runtime_that_one_of_two_devices_lacks_is_a_note(lab):
    lab.lacks = (("tflite-runtime", "there"),)
    said = []
    result = bench([A], options(devices=(HERE, THERE), runtimes=("litert", "tflite-runtime")), say=said.append)
    assert len(result.records) == 3
    assert said == list(result.notes) and "a on tflite-runtime was not measured: tflite-runtime on there" in said[0]


def test_a_file_that_is_refused_is_a_note_beside_others_and_an_error_alone(lab):
    lab.refuses = ("b",)
    result = bench([A, B], options())
    assert [record.variant for record in result.records] == ["a"] and "no such operator" in result.notes[0]
    assert lab.open_in_turns == {1}  # the other one's agent had ended
    with pytest.raises(TargetError, match=r"b on litert was not measured: .*no such operator"):
        bench([B], options())


def test_what_a_delegate_refuses_is_an_error_whatever_else_is_measured(lab):
    lab.refuses = ("b",)
    with pytest.raises(TargetError, match="no such operator"):
        bench([A, B], options(delegate="libd.so"))
    assert lab.delegates[0] == {"library": "libd.so"}
    lab.refuses = ()
    (record,) = bench([A], options(delegate="/opt/libd.so")).records
    assert (record.delegate, record.delegated) == ("libd.so", (0, 2))


def test_several_samples_of_a_query_go_in_one_call_where_the_batch_is_free(lab):
    (record,) = bench([A], options(scenario=Scenario.MULTI_STREAM)).records
    assert {call[4] for call in lab.calls} == {8} and (record.batch, record.block) == (8, QUERIES_A_TURN)
    assert (record.outcome.metric, record.outcome.queries) == ("p99_query_ms", 50)
    lab.calls.clear()
    (record,) = bench([A], options(scenario=Scenario.OFFLINE, runs=100)).records
    assert record.n == record.block == 13  # 100 samples, 8 a call, all in one turn
    assert record.outcome.metric == "samples_per_s" and record.outcome.queries == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"together": 1}, "--at-once is 1"),
        ({"devices": (HERE, HERE)}, "here is named twice"),
        ({"runtimes": ("litert", "litert")}, "litert is named twice"),
        ({"profile": True, "runtimes": ("onnxruntime",)}, "Add --runtime litert"),
        ({"profile": True, "delegate": "edgetpu"}, "--profile does not work with --delegate"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(fields, said):
    with pytest.raises(OptionsError, match=said):
        options(**fields)


def test_a_runtime_that_runs_none_of_the_files_is_refused(lab):
    with pytest.raises(OptionsError, match="onnxruntime does not run tflite"):
        bench([A], options(runtimes=("litert", "onnxruntime")))
    with pytest.raises(OptionsError, match="onnxruntime does not run tflite"):
        bench([A, target("o", Format.ONNX)], options(runtimes=("onnxruntime",), delegate="edgetpu"))


def test_engines_of_a_page_are_on_the_browser_and_other_runtimes_are_not():
    files = [A, target("o", Format.ONNX), target("t", Format.TFJS)]

    def planned(devices, runtimes=()):
        found = plan_candidates(files, BenchOptions(devices=devices, runtimes=runtimes))
        return {(c.target.variant, c.runner.name, c.device.name) for c in found if c.device == BROWSER or c.target is A}

    inside = {("a", "litertjs-wasm", "browser"), ("o", "ort-wasm", "browser"), ("t", "tfjs-wasm", "browser")}
    assert planned((BROWSER,)) == inside  # engines on the GPU only by name
    assert planned((HERE, BROWSER)) == inside | {("a", "litert", "here"), ("a", "tflite-runtime", "here")}
    assert planned((HERE, BROWSER), ("litert", "tfjs-webgl")) == {
        ("a", "litert", "here"),
        ("t", "tfjs-webgl", "browser"),
    }
    assert planned((), ("litertjs-webgpu",)) == {("a", "litertjs-webgpu", "browser")}
    for devices, runtimes in (((BROWSER,), ("litert",)), ((HERE,), ("litertjs-wasm",))):
        with pytest.raises(OptionsError, match=f"none of these runtimes runs these files on {devices[0].name}"):
            planned(devices, runtimes)


def test_a_delegate_and_loadgen_are_refused_in_a_browser():
    for refused in ({"delegate": "edgetpu"}, {"driver": Driver.LOADGEN}):
        with pytest.raises(OptionsError, match="does not work in a browser"):
            BenchOptions(devices=(BROWSER,), **refused)


def test_a_page_tells_no_cpu_time_and_its_rows_say_so(lab):
    lab.cpu_share = None
    result = bench([A, B], options())
    assert {r.cpu_ms for r in result.records} == {()} and result.ratios[0].cpu is None
    table = latency_table(result.records)
    assert {row[table.columns.index("CPU ms")] for row in table.rows} == {"unknown"}


def test_a_file_that_nothing_installed_runs_says_what_to_install(monkeypatch):
    monkeypatch.setattr("edgeloop.edge.measure.bench_plan.runners", lambda named: {})
    with pytest.raises(MissingExtra, match="pip install"):
        bench([A], BenchOptions())


def graph(*names):
    """A graph whose operator k turns tensor k, [k], into tensor k + 1."""
    tensors = [
        Tensor(name="", shape=(k,), dtype="float32", scale=(), zero_point=(), constant_bytes=0)
        for k in range(len(names) + 1)
    ]
    operators = [Operator(name=name, inputs=(k,), outputs=(k + 1,)) for k, name in enumerate(names)]
    return Graph(name="", tensors=tuple(tensors), operators=tuple(operators), inputs=(0,), outputs=(len(names),))


def ran(index, name, delegated=True):
    return {"index": index, "graph": 0, "name": name, "delegated": delegated}


def test_an_operator_that_ran_in_xnnpack_has_the_shapes_of_the_models_own():
    model = graph("CONV_2D", "ADD", "CONV_2D", "MEAN", "FULLY_CONNECTED")
    ops = [
        ran(0, "Convolution (NHWC, F32) IGEMM"),
        ran(1, "Add (ND)"),
        ran(2, "Clamp (NC)"),
        ran(3, "Fully Connected (NC, F32) GEMM"),  # a 1x1 convolution
        ran(3, "MEAN", delegated=False),
        ran(0, "Fully Connected (NC, F32) GEMM"),
    ]
    found = [(op["operator"], op["output"]) for op in with_shapes(ops, [model])]
    assert found == [
        ("CONV_2D", [1]),
        ("ADD", [2]),
        (None, None),  # XNNPACK's own
        ("CONV_2D", [3]),
        ("MEAN", [4]),
        ("FULLY_CONNECTED", [5]),
    ]


def test_operators_that_stayed_with_the_runtime_are_told_by_their_own_number():
    model = graph("CONV_2D", "CONV_2D", "Convolution2DTransposeBias")  # the last one is MediaPipe's
    ops = [
        ran(0, "Convolution (NHWC, F32) IGEMM"),
        ran(1, "CONV_2D", delegated=False),
        ran(2, "Convolution2DTransposeBias", delegated=False),
    ]
    assert [op["output"] for op in with_shapes(ops, [model])] == [[1], [2], [3]]


def test_operators_that_cannot_be_told_apart_have_no_shapes():
    model = graph("CONV_2D", "CONV_2D")
    ops = [ran(0, "Convolution (NHWC, F32) IGEMM")]
    assert with_shapes(ops, [model])[0]["output"] is None
    assert np.all([op["inputs"] is None for op in with_shapes(ops, [model])])


def asked(specs, scenario=Scenario.OFFLINE, shapes=None, **target):
    """Samples of a call, and the shapes of its inputs."""
    file = BenchTarget(
        variant="m", folder=Path(), entry="m.tflite", format=Format.TFLITE, bytes=1, sha256="0" * 64, **target
    )
    options = BenchOptions(scenario=scenario, shapes=shapes or {}, runs=64)
    described = {name: {"shape": shape, "dtype": dtype} for name, (shape, dtype) in specs.items()}
    query, inputs = query_and_inputs(with_sizes(described, options.shapes), None, file, options)
    return query.samples_per_call, {name: array.shape for name, array in inputs.items()}


def test_a_first_axis_is_a_batch_only_where_the_model_or_the_bundle_says_so():
    image = {"x": ([320, 320, 3], "float32")}
    assert asked(image) == (1, {"x": (320, 320, 3)})
    assert asked({"x": ([4, 3], "float32")}) == (1, {"x": (4, 3)})
    assert asked({"x": ([4, 3], "float32")}, batched=True) == (4, {"x": (4, 3)})
    assert asked({"x": ([None, 3], "float32")}) == (8, {"x": (8, 3)})  # 8 at a time, offline


def test_free_sizes_are_those_that_are_named():
    free = {"x": ([None, None, 3], "float32"), "n": ([1], "int32")}
    assert asked(free, Scenario.SINGLE_STREAM, {"x": (1, 20, 3)}) == (1, {"x": (1, 20, 3), "n": (1,)})
    assert asked(free, Scenario.SINGLE_STREAM, {"x": (None, 20, None)})[1]["x"] == (1, 20, 3)
    for shapes in ({"x": (1, 20)}, {"x": (1, 20, 4)}):
        with pytest.raises(TargetError, match=r"x=1,20.* does not fit its inputs, which are x \[\?, \?, 3\], n"):
            asked(free, Scenario.SINGLE_STREAM, shapes)
    with pytest.raises(OptionsError, match=r"--shape names the input 'y'\. The model's inputs are: x \[\?, \?, 3\], n"):
        asked(free, Scenario.SINGLE_STREAM, {"y": (1,)})
    assert free_sizes({"x": {"shape": [None, None, 3]}, "n": {"shape": [None]}}) == ("x",)


def test_a_model_without_inputs_is_measured_and_one_of_texts_refused_in_words():
    assert asked({}) == (1, {})
    with pytest.raises(TargetError, match="input 'x' is of type bytes, and only numbers can be made up"):
        asked({"x": ([2], "bytes")})


def test_sizes_that_nobody_said_and_threads_without_a_cpu_are_remarked(lab):
    record = replace(
        bench([A], options()).records[0], input_shapes={"x": (1, 1, 3)}, assumed_sizes=("x",), cpus=2, threads=4
    )
    told = notes([record])
    assert "Free sizes of x were measured as 1: 1,1,3. Choose others with --shape x=1,1,3." in told
    assert any("has 2 CPUs, and the model ran with 4 threads" in line for line in told)
    assert not [
        line for line in notes([replace(record, assumed_sizes=(), threads=2)]) if "sizes" in line or "CPUs" in line
    ]
