"""What may be said of two measurements, and what not."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgeloop import cli
from edgeloop.edge.measure.bench_comparison import Change, CompareOptions, change_of, compare
from edgeloop.edge.measure.bench_document import read_bench
from edgeloop.edge.measure.bench_records import Interval
from edgeloop.errors import DataError, OptionsError

N = 200


def record(scale=1.0, seed=0, **changes) -> dict:
    """200 runs around `scale` milliseconds, each within 1%; CPU time is 0.98 of wall time."""
    wall = scale * (1 + 0.01 * np.random.default_rng(seed).uniform(-1, 1, N))
    made = {
        "variant": "int8",
        "format": "tflite",
        "bytes": 1000,
        "runtime": "litert",
        "device": "local",
        "threads": 1,
        "delegate": None,
        "scenario": "single-stream",
        "batch": 1,
        "block": 10,
        "steady": {"reached": True, "from": 0, "why": ""},
        "contended": False,
        "valid": True,
        "invalid_because": None,
        "functional_only": False,
        "wall_ms": wall.tolist(),
        "cpu_ms": (0.98 * wall).tolist(),
    }
    return made | changes


def document(*records) -> dict:
    return {"bench": list(records)}


def changes(first, second, **options) -> list[tuple]:
    return [(r.change, r.why) for r in compare(document(first), document(second), CompareOptions(**options))]


def test_the_verdict_is_about_the_second_document():
    assert changes(record(1.0), record(1.25, 1)) == [(Change.SLOWER, "")]
    assert changes(record(1.25), record(1.0, 1)) == [(Change.FASTER, "")]


def test_the_ratio_is_that_of_the_medians_and_its_interval_holds_it():
    (row,) = compare(document(record(2.0)), document(record(3.0, 1)))
    for ratio in (row.wall, row.cpu):
        # each median lies within 1% of its scale, so their ratio within 2% of 3 / 2
        assert ratio.ratio == pytest.approx(1.5, rel=0.02)
        assert ratio.low <= ratio.ratio <= ratio.high


def test_the_same_again_cannot_be_told_apart():
    assert changes(record(1.0), record(1.0, 1)) == [(Change.CANNOT_TELL, "the difference is not above 2%")]


def test_a_difference_inside_the_margin_does_not_count_and_beyond_it_does():
    # 10% slower, known to about 0.5%
    assert changes(record(1.0), record(1.1, 1), margin=0.2) == [(Change.CANNOT_TELL, "the difference is not above 20%")]
    assert changes(record(1.0), record(1.1, 1), margin=0.05) == [(Change.SLOWER, "")]


@pytest.mark.parametrize(
    ("low", "high", "change", "why"),
    [
        (1.03, 1.5, Change.SLOWER, ""),
        (1.01, 1.5, Change.CANNOT_TELL, "overlaps the margin"),
        (0.7, 1.5, Change.CANNOT_TELL, "overlaps the margin"),
        (0.7, 0.99, Change.CANNOT_TELL, "overlaps the margin"),
        (0.7, 0.98, Change.FASTER, ""),  # 1 / 1.02 = 0.9804
        (0.99, 1.01, Change.CANNOT_TELL, "the difference is not above 2%"),
        (None, None, Change.CANNOT_TELL, "too few blocks"),
    ],
)
def test_the_whole_interval_must_lie_beyond_the_margin(low, high, change, why):
    ratio = Interval(ratio=1.0, low=low, high=high)
    said, because = change_of(ratio, ratio, alone=True, margin=0.02)
    assert said is change
    assert because == "" if not why else why in because


def test_of_contended_runs_the_cpu_time_must_say_the_same():
    slower, even = Interval(ratio=2.0, low=1.9, high=2.1), Interval(ratio=1.0, low=0.9, high=1.1)
    assert change_of(slower, slower, alone=False, margin=0.02)[0] is Change.SLOWER
    assert change_of(slower, even, alone=True, margin=0.02)[0] is Change.SLOWER
    assert change_of(slower, None, alone=True, margin=0.02)[0] is Change.SLOWER
    for cpu in (even, None):
        said, why = change_of(slower, cpu, alone=False, margin=0.02)
        assert said is Change.CANNOT_TELL and "may have been contended" in why
    # as records have it: wall time doubled by waiting, CPU time the same
    for contended in (True, "unknown"):
        waited = record(2.0, 1, contended=contended, cpu_ms=record(1.0, 1)["cpu_ms"])
        assert changes(record(1.0), waited)[0][0] is Change.CANNOT_TELL
        assert changes(waited, record(1.0))[0][0] is Change.CANNOT_TELL


def test_a_cpu_clock_too_coarse_for_the_runs_leaves_the_wall_time():
    (row,) = compare(document(record(1.0)), document(record(2.0, 1, cpu_ms=[0.0] * N)))
    assert row.change is Change.SLOWER and row.cpu is None


def test_too_few_runs_are_never_enough_for_a_verdict():
    few = {name: record(2.0)[name][:45] for name in ("wall_ms", "cpu_ms")}  # 9 turns of 5
    said, why = changes(record(1.0), record(2.0, **few))[0]
    assert said is Change.CANNOT_TELL and "too few blocks" in why


def test_only_steady_runs_are_compared():
    wall = [9.0] * 150 + record(1.0, 1)["wall_ms"][:50]
    late = record(1.0, 1, wall_ms=wall, steady={"reached": True, "from": 150, "why": ""})
    assert changes(record(1.0), late)[0][0] is Change.CANNOT_TELL


def test_of_a_run_that_never_settled_every_turn_must_say_the_same():
    never = {"steady": {"reached": False, "from": None, "why": ""}}
    assert changes(record(1.0), record(2.0, 1, **never)) == [(Change.SLOWER, "")]
    wall = record(2.0, 1)["wall_ms"]
    wall[100:105] = [1.0] * 5  # one turn of 40
    times = {"wall_ms": wall, "cpu_ms": wall}
    assert changes(record(1.0), record(**times)) == [(Change.SLOWER, "")]
    said, why = changes(record(1.0), record(**times, **never))[0]
    assert (said, why) == (
        Change.CANNOT_TELL,
        "the second measurement reached no steady state, and its blocks do not all agree",
    )
    said, why = changes(record(**times, **never), record(1.0))[0]
    assert (said, why) == (
        Change.CANNOT_TELL,
        "the first measurement reached no steady state, and its blocks do not all agree",
    )
    wall = record(1.0)["wall_ms"]
    wall[100:105] = [2.0] * 5
    assert changes(record(wall_ms=wall, cpu_ms=wall, **never), record(2.0))[0][0] is Change.CANNOT_TELL


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"bytes": 1001}, "bytes differs: 1000 and 1001"),
        ({"format": "onnx"}, "format differs: tflite and onnx"),
        ({"batch": 8}, "batch differs: 1 and 8"),
        ({"threads": 4}, "threads differs: 1 and 4"),
        ({"scenario": "offline"}, "scenario differs: single-stream and offline"),
        ({"sha256": "ab"}, "sha256 differs: None and ab"),
        ({"valid": False, "invalid_because": "throttled"}, "the second measurement is invalid: throttled"),
        ({"functional_only": True}, "the second measurement ran on an emulated device"),
        ({"wall_ms": [0.0] * N}, "the second measurement has no block of calls with times above 0"),
        ({"steady": {"from": N}}, "the second measurement has no block"),
    ],
)
def test_what_is_not_comparable_is_not_compared_and_says_why(change, why):
    (row,) = compare(document(record()), document(record(2.0) | change))
    assert row.change is Change.NOT_COMPARABLE and row.wall is None
    assert why in row.why


def test_rows_pair_by_variant_runtime_and_delegate():
    first = document(record(), record(variant="float32"), record(delegate="edgetpu"), record(runtime="gone"))
    second = document(record(delegate="edgetpu"), record(variant="float32"), record(), record(runtime="new"))
    found = [(r.variant, r.runtime, r.delegate) for r in compare(first, second)]
    assert found == [("int8", "litert", None), ("float32", "litert", None), ("int8", "litert", "edgetpu")]


def test_another_device_will_do_unless_there_are_several():
    assert [r.devices for r in compare(document(record()), document(record(device="ssh:pi")))] == [("local", "ssh:pi")]
    both = document(record(), record(device="ssh:pi"))
    assert [r.devices for r in compare(both, both)] == [("local", "local"), ("ssh:pi", "ssh:pi")]
    with pytest.raises(DataError, match=r"no row in common: int8 on litert and int8 on litert\."):
        compare(document(record(device="a"), record(device="b")), document(record(device="c")))


def test_documents_without_a_common_row_and_with_a_row_twice_are_refused():
    with pytest.raises(DataError, match=r"no row in common: int8 on litert and int4 on litert\. Compare"):
        compare(document(record()), document(record(variant="int4")))
    with pytest.raises(DataError, match="the second document has int8 on litert on local twice"):
        compare(document(record()), document(record(), record()))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"compared": []}', "has no list `bench`"),
        (b'{"bench": []}', "has no row"),
        (b'{"bench": [1]}', "row 0 has no valid field names"),
        (json.dumps(document(record(), record(runtime=1))).encode(), "row 1 has no valid field runtime"),
        (json.dumps(document(record(wall_ms=["1"]))).encode(), "row 0 has no valid field wall_ms"),
        (json.dumps(document(record(wall_ms=[-1.0]))).encode(), "row 0 has no valid field wall_ms"),
        (
            json.dumps(document(record(cpu_ms=[1.0]))).encode(),
            "row 0 has no valid field cpu_ms, one a run or none",
        ),
        (json.dumps(document(record(valid="no"))).encode(), "row 0 has no valid field valid"),
        (json.dumps(document(record(block=0))).encode(), "row 0 has no valid field block"),
        (json.dumps(document(record(contended="perhaps"))).encode(), "row 0 has no valid field contended"),
        (json.dumps(document(record(steady=None))).encode(), "row 0 has no valid field steady"),
        (json.dumps(document(record(steady={"from": -1}))).encode(), "row 0 has no valid field steady"),
        (json.dumps(document(record(delegate=1))).encode(), "row 0 has no valid field delegate"),
    ],
)
def test_a_file_that_is_no_bench_document_is_refused_with_what_it_lacks(tmp_path, content, found):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_bench(tmp_path / "a.json")
    assert found in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(DataError, match=r"nowhere\.json cannot be read: No such file"):
        read_bench(Path("nowhere.json"))


@pytest.mark.parametrize("margin", [-0.1, 1.0, float("nan")])
def test_a_margin_is_a_share(margin):
    with pytest.raises(OptionsError, match="It must be from 0 to below 1"):
        CompareOptions(margin=margin)


@pytest.fixture
def files(tmp_path):
    """Before; after, 1.9 times as long."""
    for name, scale in (("a.json", 1.0), ("b.json", 1.9)):
        (tmp_path / name).write_text(json.dumps(document(record(scale, int(scale)))))
    return [str(tmp_path / name) for name in ("a.json", "b.json")]


def test_the_verb_prints_one_document_and_ends_well_whatever_the_verdict(files, capfd):
    assert cli.run(["compare", *files, "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert [(row["change"], row["devices"]) for row in printed["compared"]] == [("slower", ["local", "local"])]
    assert printed["compared"][0]["wall"]["low"] > 1.8
    assert cli.run(["compare", *files]) == 0
    assert "slower" in capfd.readouterr().out
    assert cli.run(["compare", *files, "--margin", "0.99", "--json"]) == 0  # 1.9, give or take 2%, is below 1.99
    assert json.loads(capfd.readouterr().out)["compared"][0]["change"] == "cannot-tell"


def test_what_cannot_be_told_has_its_reason_below_the_table(files, capfd):
    assert cli.run(["compare", *files, "--margin", "0.99"]) == 0
    printed = capfd.readouterr().out
    assert "time of the second measurement relative to the first: litert on local" in printed
    assert "cannot-tell   (1)" in printed and "\n(1) the difference is not above 99%\n" in printed


def test_fail_if_is_exit_6_with_the_document_all_the_same(files, capfd):
    assert cli.run(["compare", *files, "--json", "--fail-if", "slower", "--fail-if", "not-comparable"]) == 6
    printed = capfd.readouterr()
    assert json.loads(printed.out)["compared"][0]["change"] == "slower"
    assert "int8 on litert is slower. --fail-if allows none of these." in printed.err
    assert cli.run(["compare", *reversed(files), "--fail-if", "slower"]) == 0
    assert cli.run(["compare", *files, "--fail-if", "slow"]) == 2
    assert "--fail-if 'slow' is not known. Did you mean slower? Choose from faster, slower" in capfd.readouterr().err


def test_bad_input_is_exit_10(files, tmp_path):
    (tmp_path / "c.json").write_text("{}")
    assert cli.run(["compare", files[0], str(tmp_path / "c.json")]) == 10
