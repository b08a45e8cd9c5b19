"""The front and its picture, and the layers of a made-up graph."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.transforms import IdentityTransform

from edgeloop.bundle import Scheme
from edgeloop.convert.proof.worst_layer import LayerSnr
from edgeloop.convert.search.candidate import Budget, MixCandidate, MixMeasurement, MixRefusal
from edgeloop.convert.search.metric import Metric, SourceScore
from edgeloop.convert.search.pareto import pareto_front, search_document
from edgeloop.convert.search.rank import layers_of
from edgeloop.convert.search.report import draw_front, search_report
from edgeloop.convert.search.search import SearchResult
from edgeloop.files.flatbuffer import Graph, Operator, Tensor

ACCURACY = Metric.ACCURACY
PLACE = (Path("m"), Path("m.search.html"))


def candidate(scheme, size, accuracy, ratio, keep=None):
    measured = MixMeasurement(value=accuracy, latency_ms=ratio / 10, latency_ratio=ratio, snr_db=None, passed=True)
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
        front=pareto_front(TRIED, ACCURACY),
        tried=TRIED,
        refused=(MixRefusal(scheme=Scheme.DYNAMIC, keep={}, reason="<no> such form"),),
        resumed=2,
        budget=Budget(source=SourceScore(metric=Metric.ACCURACY, value=0.905), max_drop=1.0),
    )


def test_the_front_drops_what_another_beats_in_size_accuracy_and_latency():
    # float16 is larger than the mix and no more accurate, but faster; int16x8 is beaten by the mix in all three
    assert pareto_front(TRIED, ACCURACY) == (INT8, MIX, HALF)


def test_equals_are_both_on_the_front():
    twin = candidate(Scheme.INT8, 1000, 0.80, 0.5, {"x": Scheme.FLOAT32})
    assert {c.label for c in pareto_front([INT8, twin], ACCURACY)} == {"int8", "int8 + 1 float32"}


class Drawn:
    """Axes that note what is asked of them."""

    def __init__(self):
        self.calls = []
        self.transData = IdentityTransform()
        self.figure = SimpleNamespace(dpi_scale_trans=IdentityTransform())

    def __getattr__(self, name):
        return lambda *positions, **style: self.calls.append((name, positions, style))

    def of(self, name) -> list[tuple]:
        return [(*positions, style) for called, positions, style in self.calls if called == name]


def drawn(some=None):
    axes = Drawn()
    draw_front(axes, search_document(some or found()))
    return axes


def test_the_picture_places_every_candidate_by_size_accuracy_and_latency():
    points = {c.label: point for c, point in zip(TRIED, drawn().of("scatter"), strict=True)}
    assert {label: (kb, percent) for label, (kb, percent, _) in points.items()} == {
        "float32": (4.0, 90.0),
        "int8": (1.0, 80.0),
        "int16x8": (1.6, 89.0),
        "float16": (2.0, 90.0),
        "int8 + 1 float16": (1.5, 90.0),
    }
    areas = {label: style["s"] for label, (_, _, style) in points.items()}
    assert areas["int16x8"] == pytest.approx(9 * areas["float32"])  # the area is the latency
    filled = {label for label, (_, _, style) in points.items() if style["facecolor"] != "none"}
    assert filled == {"int8", "int8 + 1 float16", "float16"}


def test_the_line_joins_what_no_smaller_mix_equals_and_the_dashed_one_is_the_source():
    (line,) = drawn().of("plot")
    assert line[:2] == ([1.0, 1.5], [80.0, 90.0])
    (source,) = drawn().of("axhline")
    assert source[0] == 90.5 and source[1]["linestyle"] == "--"


def test_the_best_is_named_and_no_name_lies_on_another():
    names = [name for name, *_ in drawn().of("annotate")]
    assert names[0] == "int8 + 1 float16"
    assert "float16" not in names  # 0.5 kB right of the best, at the same height: its name would lie on the other
    assert {"int8", "float32"} <= set(names)


@pytest.mark.parametrize("some", [(INT8,), (INT8, INT8)])
def test_few_candidates_make_a_picture_too(some):
    one = SearchResult(
        best=INT8,
        front=pareto_front(some, ACCURACY),
        tried=some,
        refused=(),
        resumed=0,
        budget=Budget(source=SourceScore(metric=Metric.ACCURACY, value=0.8), max_drop=1.0),
    )
    assert len(drawn(one).of("scatter")) == len(some)


def test_without_matplotlib_the_table_stays_and_the_page_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = search_report("m", search_document(found()), *PLACE)
    assert "<svg" not in page and "edgeloop[plots]" in page and "<td>int16x8</td>" in page


def test_the_page_says_what_was_found_and_escapes_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # which takes a second to load
    page = search_report("a <model>", search_document(found()), *PLACE)
    assert "a &lt;model&gt;" in page and "a&lt;b&amp;c" in page and "&lt;no&gt; such form" in page
    assert "1,500 bytes, 90.00%, 0.50 points below the source&#x27;s 90.50%; the budget is 1 points of accuracy" in page
    assert re.search(r"<tr class=best><td>int8 \+ 1 float16</td>", page) and "<model>" not in page


def test_the_document_points_into_what_was_tried():
    document = search_document(found())
    assert [document["tried"][k]["label"] for k in document["front"]] == ["int8", "int8 + 1 float16", "float16"]
    assert document["tried"][document["best"]]["keep"] == {"a<b&c": "float16"}
    assert (document["evaluations"], document["resumed"]) == (6, 2)
    assert [row["holds"] for row in document["tried"]] == [True, False, False, True, True]


def test_of_an_rmse_less_is_better_on_the_page_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    source = SourceScore(metric=Metric.RMSE, value=2.0, unit=2.0)
    tried = (candidate(Scheme.FLOAT32, 4000, 2.0, 1.0), candidate(Scheme.INT8, 1000, 2.5, 0.5),
             candidate(Scheme.DYNAMIC, 1100, 2.6, 0.6))  # fmt: skip
    front = pareto_front(tried, Metric.RMSE)
    assert [c.label for c in front] == ["int8", "float32"]
    some = SearchResult(
        best=tried[0], front=front, tried=tried, refused=(), resumed=0, budget=Budget(source=source, max_drop=5.0)
    )
    document = search_document(some)
    assert (document["metric"], document["unit"], document["max_drop"]) == ("RMSE", "%", 5.0)
    assert [row["drop"] for row in document["tried"]] == pytest.approx([0, 25, 30])
    page = search_report("m", document, *PLACE)
    assert "4,000 bytes, 2, 0.00% above the source&#x27;s 2; the budget is 5% of RMSE" in page
    assert "<th>drop, %</th>" in page.replace("<th scope=col>", "<th>")
    (line,), (dashed,) = drawn(some).of("plot"), drawn(some).of("axhline")
    assert line[:2] == ([1.0, 4.0], [2.5, 2.0]) and dashed[0] == 2.0


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
