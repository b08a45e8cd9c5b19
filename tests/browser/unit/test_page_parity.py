"""The page judges and converts as edge does: its TypeScript in Node beside edge's Python, on the same numbers."""

import dataclasses
import json
import subprocess

import numpy as np
import pytest

from edgeloop.browser.runners import find_node
from edgeloop.bundle import Scheme
from edgeloop.errors import MissingExtra
from edgeloop.runtime.parity.compare import (
    FLOORS,
    RunContext,
    bounded_outputs,
    compare,
    floor_of,
    is_classifier,
    judged_as,
)
from edgeloop.runtime.parity.quantization import to_real, to_stored

PROGRAM = """
import { readFileSync } from "node:fs";
const { FLOORS, compare, isClassifier } = await import(process.argv[1]);
const { toStored, toReal } = await import(process.argv[2]);
const functions = { floors: () => FLOORS, compare, isClassifier, toStored, toReal };
const calls = JSON.parse(readFileSync(0, "utf8"));
const answers = calls.map(([name, ...given]) => functions[name](...given));
const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value, Number) : value);
process.stdout.write(JSON.stringify(answers, plain));
"""


@pytest.fixture(scope="module")
def node():
    try:
        return find_node()
    except MissingExtra as e:
        pytest.skip(str(e))


@pytest.fixture(scope="module")
def page(node, root):
    """Calls in, the page's answers out."""
    if (
        subprocess.run([node, "-p", "process.features.typescript"], capture_output=True, timeout=180).stdout
        != b"strip\n"
    ):
        pytest.skip(f"{node} does not run TypeScript: Node 22.18 or later is needed")
    sources = [(root / f"browser/web/src/page/{name}.ts").as_uri() for name in ("parity", "engines/quantization")]

    def ask(calls):
        done = subprocess.run(
            [node, "--input-type=module", "-e", PROGRAM, *sources],
            input=json.dumps(calls).encode(),
            capture_output=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return ask


def plain(array):
    """JSON has no NaN or infinity: their names, of which JavaScript's Number makes them again."""
    values = [
        x if np.isfinite(x) else {"inf": "Infinity", "-inf": "-Infinity"}.get(str(x), "NaN")
        for x in array.ravel().tolist()
    ]
    return {"shape": list(array.shape), "dtype": array.dtype.name, "data": values}


def test_the_pages_floors_are_edges_floors(page):
    (floors,) = page([["floors"]])
    ours = {scheme.value: dataclasses.asdict(floor) for scheme, floor in FLOORS.items()}
    for floor in ours.values():
        assert floor.pop("bounded") == ()  # of each bundle's own outputs, which its manifest names
    assert floors == ours
    assert set(floors) == {scheme.value for scheme in Scheme}


def noisy(rng, reference, snr_db):
    """The reference and noise of exactly that SNR."""
    noise = rng.normal(size=reference.shape)
    noise *= np.sqrt(np.sum(reference**2) / np.sum(noise**2) / 10 ** (snr_db / 10))
    return (reference + noise).astype("float64")


def cases():
    rng = np.random.default_rng(5)
    probabilities = rng.dirichlet(np.ones(4) * 0.3, size=12).astype("float32")
    for scheme in Scheme:
        for margin in (-0.1, 0.1, 30.0):  # dB around the floor
            yield scheme, probabilities, noisy(rng, probabilities, FLOORS[scheme].snr_db + margin)
            yield scheme, 50 * probabilities - 7, noisy(rng, 50 * probabilities - 7, FLOORS[scheme].snr_db + margin)
        yield scheme, probabilities, probabilities  # exact
        for wrong in (1, 2, 3):  # of 12, 85% asks for at most 1.8 that differ: the second decides
            shifted = probabilities.copy()
            shifted[:wrong] = np.roll(shifted[:wrong], 1, axis=1)
            yield scheme, probabilities, shifted
    big = np.full((3, 2), 1000.0, "float32")
    yield Scheme.FLOAT32, big, big + np.float32(0.009)  # 1e-5 of the largest is 0.01
    yield Scheme.FLOAT32, big, big + np.float32(0.011)
    one = np.array([[1000.0, 0.0]], "float32")
    yield Scheme.FLOAT32, np.zeros((2, 3), "float32"), np.full((2, 3), 1e-6, "float32")  # zeros: against one unit each
    yield Scheme.FLOAT32, np.zeros((2, 3), "float32"), np.full((2, 3), 1e-4, "float32")
    yield Scheme.INT8, one, one * 1e30  # beyond -200 dB
    yield Scheme.INT8, one, np.array([[np.nan, 0.0]], "float32")
    yield Scheme.INT8, one, np.array([[np.inf, 0.0]], "float32")
    yield Scheme.INT8, one, one[:, :1]
    yield Scheme.INT8, one, None
    yield Scheme.INT8, np.array([3, 1, 2], "int64"), np.array([3, 1, 2], "int64")
    yield Scheme.INT8, np.array([[0.5, 0.3]], "float32"), np.array([[0.5, 0.3]], "float32")  # no shares of a whole


def test_the_page_judges_as_edge_does(page):
    given = list(cases())
    classes = page([["isClassifier", {"y": plain(r)}, labelled] for _, r, _ in given for labelled in (False, True)])
    assert classes == [is_classifier({"y": r}, labelled) for _, r, _ in given for labelled in (False, True)]
    judged = page(
        [
            [
                "compare",
                scheme.value,
                {"y": plain(r)},
                {} if v is None else {"y": plain(v)},
                is_classifier({"y": r}, False),
            ]
            for scheme, r, v in given
        ]
    )
    for (scheme, r, v), [row] in zip(given, judged, strict=True):
        got = {} if v is None else {"y": v}
        [expected] = compare(
            RunContext("v", "r"), floor_of(scheme), {"y": r}, got, classifier=is_classifier({"y": r}, False)
        )
        assert row["passed"] == expected.passed, (scheme, row, expected)
        assert (row["error"] is None) == (expected.error is None)
        assert row["top1_agreement"] == expected.top1_agreement
        assert row["snr_db"] == pytest.approx(expected.snr_db, abs=1e-9)  # sums in another order
        if expected.error is None:
            assert row["max_abs"] == pytest.approx(expected.max_abs, rel=1e-12)
    verdicts = [row["passed"] for [row] in judged]
    assert True in verdicts and False in verdicts


def test_the_page_reads_what_the_manifest_says_of_the_source_as_edge_does(page):
    quiet = np.full((3, 2), 3e-5, "float32")  # an error of 1e-7 is 50 dB, one of 6e-7 34
    loud = np.eye(50, dtype="float64")  # one value off by 4e-5: 105 dB
    sources = ({}, {"bounded": "y"}, {"bounded": "other,y"}, {"bounded": "other"}, {"rounds": "int8"})
    sources = (*sources, {"rounds": "dynamic"})
    given = [
        (source, scheme, quiet + np.float32(error))
        for source in sources
        for scheme in (Scheme.FLOAT32, Scheme.FLOAT16)
        for error in (1e-7, 6e-7)
    ]
    given = [(source, scheme, quiet, value) for source, scheme, value in given]
    for p in (0.5, 0.009, 0.011, 0.989, 0.991, 1.0):
        loud, off = loud.copy(), loud.copy()
        loud[7, 7], off[7, 7] = p, p + 4e-5
        given += [(source, Scheme.FLOAT32, loud, off) for source in sources]
    judged = page(
        [["compare", scheme.value, {"y": plain(r)}, {"y": plain(v)}, False, source] for source, scheme, r, v in given]
    )
    for (source, scheme, reference, value), [row] in zip(given, judged, strict=True):
        floor = floor_of(judged_as(scheme, source), bounded=bounded_outputs(source))
        [expected] = compare(RunContext("v", "r"), floor, {"y": reference}, {"y": value})
        assert row["passed"] == expected.passed, (source, scheme)
    verdicts = [row["passed"] for [row] in judged]
    #           float32, float16 of: nothing, y, other and y, other, sources that round in int8 and by every call
    verdicts, unit = verdicts[:-36], verdicts[-36:]
    for i, undecided in enumerate((True, False, True, True, False, False)):
        assert unit[6 * i : 6 * i + 6] == [False, undecided, undecided, False, True, True]
    assert verdicts[::2] == [False, True] + [True, True] * 2 + [False, True] + [True, True] * 2
    assert verdicts[1::2] == [False, False] * 5 + [True, True]  # 34 dB, and 12 are asked of the last


def test_two_outputs_are_judged_each_and_are_no_classifier(page):
    a, b = np.eye(3, dtype="float32"), np.ones((3, 3), "float32")
    expected = {"a": plain(a), "b": plain(b)}
    classifier, rows = page(
        [["isClassifier", expected, True], ["compare", "int8", expected, {"a": plain(a), "b": plain(-b)}, False]]
    )
    assert classifier is False
    assert [(row["output"], row["passed"]) for row in rows] == [("a", True), ("b", False)]


@pytest.mark.parametrize("scheme", ["float64", "constructor"])
def test_a_scheme_without_a_floor_passes_nothing(page, scheme):
    one = {"y": plain(np.ones((2, 2), "float32"))}
    [[row]] = page([["compare", scheme, one, one, False]])
    assert row["passed"] is False
    assert row["error"] == f"this page has no parity thresholds for the scheme {scheme}"


def test_the_page_stores_a_float_as_the_quantize_operator_does(page):
    rng = np.random.default_rng(6)
    ends = [("int8", -128), ("uint8", 3), ("int16", 0)]
    for scale in (0.0039215688593685627, 0.5, 0.1):
        halves = (np.arange(-300, 300) + 0.5) * scale
        more = rng.uniform(-400 * scale, 400 * scale, 2000)
        values = np.concatenate([halves, more, [1e9, -1e9]]).astype("float32")
        expected = {dtype: to_stored(values, dtype, scale, zero_point) for dtype, zero_point in ends}
        q = {dtype: {"dtype": dtype, "scale": scale, "zero_point": zero_point} for dtype, zero_point in ends}
        stored = page([["toStored", plain(values), q[dtype]] for dtype in q])
        real = page([["toReal", plain(expected[dtype]), q[dtype]] for dtype in q])
        for (dtype, zero_point), there, back in zip(ends, stored, real, strict=True):
            assert (there["dtype"], back["dtype"]) == (dtype, "float32")
            np.testing.assert_array_equal(there["data"], expected[dtype])
            got = np.array(back["data"], "float32")
            np.testing.assert_array_equal(got, to_real(expected[dtype], scale, zero_point))


def test_what_is_not_scaled_or_not_float_stays_as_it_is(page):
    floats, whole = plain(np.array([1.5], "float32")), plain(np.array([7], "int32"))
    unscaled = {"dtype": "float32", "scale": 0, "zero_point": 0}
    scaled = {"dtype": "int8", "scale": 0.5, "zero_point": 1}
    calls = [
        ["toStored", floats, unscaled],
        ["toStored", whole, scaled],
        ["toReal", whole, unscaled],
        ["toReal", floats, scaled],
    ]
    assert page(calls) == [floats, whole, whole, floats]
