"""The front and its picture, and the layers of a made-up graph."""

import re
import xml.etree.ElementTree as ET

import pytest

from edgeloop.bundle import Scheme
from edgeloop.convert.proof.worst_layer import LayerSnr
from edgeloop.convert.search.candidate import Budget, MixCandidate, MixMeasurement, MixRefusal
from edgeloop.convert.search.pareto import pareto_front, pareto_svg, report_html, search_document
from edgeloop.convert.search.rank import layers_of
from edgeloop.convert.search.search import SearchResult
from edgeloop.files.flatbuffer import Graph, Operator, Tensor


def candidate(scheme, size, accuracy, ratio, keep=None):
    measured = MixMeasurement(accuracy=accuracy, latency_ms=ratio / 10, latency_ratio=ratio, snr_db=None, passed=True)
    return MixCandidate(scheme=scheme, keep=keep or {}, bytes=size, sha256="0" * 64, measured=measured)


INT8 = candidate(Scheme.INT8, 1000, 0.80, 0.5)
MIX = candidate(Scheme.INT8, 1500, 0.90, 0.7, {"a<b&c": Scheme.FLOAT16})
HALF = candidate(Scheme.FLOAT16, 2000, 0.90, 0.6)
SLOW = candidate(Scheme.INT16X8, 1600, 0.89, 9.0)
FLOAT = candidate(Scheme.FLOAT32, 4000, 0.90, 1.0)
TRIED = (FLOAT, INT8, SLOW, HALF, MIX)


def found():
    return SearchResult(
        best=MIX,
        front=pareto_front(TRIED),
        tried=TRIED,
        refused=(MixRefusal(scheme=Scheme.DYNAMIC, keep={}, reason="<no> such form"),),
        resumed=2,
        budget=Budget(reference=0.905, max_drop_pp=1.0),
    )


def test_the_front_drops_what_another_beats_in_size_accuracy_and_latency():
    # float16 is larger than the mix and no more accurate, but faster; int16x8 is beaten by the mix in all three
    assert pareto_front(TRIED) == (INT8, MIX, HALF)


def test_equals_are_both_on_the_front():
    twin = candidate(Scheme.INT8, 1000, 0.80, 0.5, {"x": Scheme.FLOAT32})
    assert {c.label for c in pareto_front([INT8, twin])} == {"int8", "int8 + 1 float32"}


def test_the_picture_places_every_candidate_by_size_accuracy_and_latency():
    picture = ET.fromstring(pareto_svg(TRIED, 0.905))
    space = {"s": "http://www.w3.org/2000/svg"}
    circles = {c.find("s:title", space).text.split(":")[0]: c for c in picture.findall("s:circle", space)}
    at = {name: [float(c.get(key)) for key in ("cx", "cy", "r")] for name, c in circles.items()}
    assert len(at) == 5
    # linear in bytes, upwards in accuracy, and the circle's area is the latency: 9 / 1 is three times the radius
    step = at["float32"][0] - at["float16"][0]
    assert at["float16"][0] - at["int8"][0] == pytest.approx(step / 2, abs=0.2)
    assert at["float32"][1] == at["float16"][1] < at["int16x8"][1] < at["int8"][1]
    assert at["int16x8"][2] == pytest.approx(3 * at["float32"][2])
    assert {name for name, c in circles.items() if c.get("fill") != "none"} == {"int8", "int8 + 1 float16", "float16"}
    line = picture.find("s:polyline", space).get("points").split()
    assert line == [f"{at[n][0]:.1f},{at[n][1]:.1f}" for n in ("int8", "int8 + 1 float16")]


@pytest.mark.parametrize("some", [(), (INT8,), (INT8, INT8)])
def test_few_candidates_make_a_picture_too(some):
    assert pareto_svg(some).count("<circle") == len(some)


def test_the_page_says_what_was_found_and_escapes_names():
    page = report_html("a <model>", found(), "accuracy")
    assert "a &lt;model&gt;" in page and "a&lt;b&amp;c" in page and "&lt;no&gt; such form" in page
    assert "1,500 bytes, 90.00%, 0.50 points below the source&#x27;s 90.50%; 1 were allowed" in page
    assert re.search(r"<tr class=best><td>int8 \+ 1 float16</td>", page) and "<model>" not in page


def test_the_document_points_into_what_was_tried():
    document = search_document(found(), "accuracy")
    assert [document["tried"][k]["label"] for k in document["front"]] == ["int8", "int8 + 1 float16", "float16"]
    assert document["tried"][document["best"]]["keep"] == {"a<b&c": "float16"}
    assert (document["evaluations"], document["resumed"]) == (6, 2)
    assert [row["holds"] for row in document["tried"]] == [True, False, False, True, True]


def graph(scales):
    """image -> CONV_2D a -> MAX_POOL_2D b -> CONV_2D c; b and c -> CONCATENATION d -> SOFTMAX e; `scales` by name."""
    names = ("image", "a", "b", "c", "d", "e", "w")
    tensors = tuple(
        Tensor(
            name=n,
            shape=(1,),
            dtype="int8",
            scale=(scales[n],) if n in scales else (),
            zero_point=(0,) if n in scales else (),
            constant_bytes=100 if n == "w" else 0,
        )
        for n in names
    )
    steps = [
        ("CONV_2D", "image w", "a"), ("MAX_POOL_2D", "a", "b"), ("CONV_2D", "b w", "c"), ("CONCATENATION", "b c", "d"),
        ("SOFTMAX", "d", "e"),
    ]  # fmt: skip
    operators = tuple(
        Operator(name=op, inputs=tuple(names.index(n) for n in read.split()), outputs=(names.index(made),))
        for op, read, made in steps
    )
    return Graph(name="g", tensors=tensors, operators=operators, inputs=(0,), outputs=(5,))


def test_layers_take_what_only_passes_values_on_and_name_what_they_read():
    snr = {"a": 40.0, "b": 40.0, "c": 20.0, "d": 20.0, "e": -30.0}
    rows = [LayerSnr(tensor=n, op="", layer="", snr_db=v, input_snr_db=200.0) for n, v in snr.items()]
    scales = {"image": 0.1, "a": 0.2, "b": 0.2, "c": 0.2, "d": 0.2, "e": 0.3, "w": 0.01}
    layers = layers_of(graph({}), graph(scales), rows)
    assert [(x.tensor, x.operators, x.inputs, x.bytes) for x in layers] == [
        ("a", ("a", "b"), (), 100),  # pooling has the scale of what it reads
        ("c", ("c",), ("a",), 100),  # so has this, but not of its weights: it computes
        ("d", ("d",), ("a", "c"), 0),  # of two layers: it belongs to neither
        ("e", ("e",), ("a", "c", "d"), 0),  # through the concatenation to what it reads
    ]


def test_a_layer_is_charged_with_the_noise_that_it_adds():
    snr = {"a": 40.0, "b": 40.0, "c": 20.0, "d": 20.0, "e": -30.0}
    rows = [LayerSnr(tensor=n, op="", layer="", snr_db=v, input_snr_db=200.0) for n, v in snr.items()]
    layers = layers_of(graph({}), graph({"image": 0.1, "a": 0.2, "b": 0.2, "c": 0.25, "d": 0.25, "e": 0.3}), rows)
    # 10^-4; 10^-2 - 10^-4; nothing; all noise (1, not 10^3) less the 10^-2 that arrived
    assert [x.damage for x in layers] == pytest.approx([1e-4, 1e-2 - 1e-4, 0.0, 1 - 1e-2])
