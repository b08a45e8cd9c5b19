"""The page of a bench: every run in it, what was steady, throttled or unknown said, nothing fetched from elsewhere."""

import re
import sys
import xml.etree.ElementTree as ET

import pytest

from edgeloop.edge.measure.bench_report import write_bench_report
from edgeloop.edge.measure.drawings import draw_series
from edgeloop.errors import WriteError
from edgeloop.result import Table

N = 40
TABLES = [Table("times <of a plan>", ["variant"], [["int8"]])]
SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


def reading(at_s: float, throttled: object = False) -> dict:
    return {
        "at_s": at_s,
        "throttled": throttled,
        "governor": "ondemand",
        "frequency_mhz": [600, 1500],
        "load": "unknown",
    }


def record(**changes) -> dict:
    made = {
        "variant": "int8",
        "runtime": "litert",
        "delegate": None,
        "device": "local",
        "batch": 1,
        "n": N,
        "p50_ms": 1.0,
        "p90_ms": None,
        "p90_interval_ms": None,
        "p95_ms": None,
        "p99_ms": None,
        "cpu_p50_ms": 0.9,
        "import_ms": 100.0,
        "load_ms": 2.0,
        "first_ms": 3.0,
        "rss_peak_bytes": 50_000_000,
        "steady": {"reached": True, "from": 10, "why": "the last windows agree within 2%"},
        "contended": False,
        "conditions": {"before": reading(0.0), "during": [reading(1.0)], "after": reading(4.0)},
        "valid": True,
        "invalid_because": None,
        "functional_only": False,
        "wall_ms": [1.0 + 0.001 * k for k in range(N)],
        "started_s": [0.1 * k for k in range(N)],
        "profile": None,
    }
    return made | changes


def document(*records, ratios=()) -> dict:
    return {
        "bench": list(records),
        "ratios": list(ratios),
        "host": {"machine": "x86_64"},
        "devices": {"local": {"machine": "x86_64", "cpus": 2, "capabilities": {"os": "an OS", "board": "unknown"}}},
        "seed": 7,
        "notes": ["int4 was left out: <no kernel>."],
    }


@pytest.fixture
def page_of(tmp_path):
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed: pip install 'edgeloop[plots]'")

    def write(*records, model=None, **more) -> str:
        assert write_bench_report(document(*records, **more), TABLES, tmp_path / "report.html", model) == []
        return (tmp_path / "report.html").read_text()

    return write


def words(picture: str) -> set[str]:
    """Matplotlib draws letters as shapes, and leaves the text in a comment."""
    return {text.strip() for text in re.findall(r"<!--(.*?)-->", picture)}


def test_a_page_needs_nothing_beside_it_and_each_picture_is_whole(page_of):
    page = page_of(record(), record(variant="float32"))
    assert re.findall(r"(?:src|href)=[\"']?(?![\"']?#)[^ >]*", page) == []
    pictures = SVG.findall(page)
    assert len(pictures) == 2 + 2 * 2  # latency and distribution of all, a histogram and a series of each
    for picture in pictures:
        ET.fromstring(picture)


def test_every_run_is_drawn(page_of):
    series = SVG.findall(page_of(record()))[3]
    frame = ET.fromstring(series).findall(".//{*}clipPath/{*}rect")[0]
    left, width = float(frame.get("x")), float(frame.get("width"))
    points = [use for use in ET.fromstring(series).iter("{http://www.w3.org/2000/svg}use") if use.get("style")]
    inside = [p for p in points if p.get("y") and left < float(p.get("x")) < left + width]
    assert len({(p.get("x"), p.get("y")) for p in inside if "fill: #0066cc" in p.get("style")}) >= N


def test_latency_is_drawn_from_the_median_to_the_90th_percentile_with_its_interval(page_of):
    found = words(SVG.findall(page_of(record(p90_ms=1.03, p90_interval_ms=[1.02, 1.04])))[0])
    assert {"p50", "p90", "95% interval of p90", "milliseconds per call", "int8"} <= found


def test_calls_of_one_sample_and_of_a_batch_share_no_axis(page_of):
    pair = {"variant": "int8", "runtime": "litert", "device": "local"}
    ratio = {"of": pair, "to": pair, "wall": {"ratio": 2.0, "low": 1.9, "high": 2.1}, "cpu": None, "n": 3}
    rows = [record(variant="one"), record(variant="another"), record(variant="sixteen", batch=16)]
    pictures = [words(picture) for picture in SVG.findall(page_of(*rows, ratios=[ratio, ratio]))]
    assert len(pictures) == 3 + 3 + 3 * 2  # latency, distribution and ratios of each batch
    assert not any({"one", "another"} & found and "sixteen" in found for found in pictures)


def test_what_no_device_tells_is_said_once_and_what_one_lacks_in_its_row(page_of):
    blind = reading(0.0, throttled="unknown") | {"governor": "unknown", "frequency_mhz": "unknown"}
    nothing = {"before": blind, "during": [], "after": blind}
    page = page_of(record(conditions=nothing), record(variant="float32", conditions=nothing))
    assert page.count("unknown") == 0 and page.count("clock, governor, temperature, throttled") == 1
    page = page_of(record(conditions=nothing), record(variant="float32"))
    assert "Unknown: throttled, governor, clock." in page and page.count("Governor: ondemand") == 1


def test_the_page_says_on_which_machines_when_with_which_seed_and_leads_to_the_bundle(page_of, tmp_path):
    (tmp_path / "a bundle").mkdir()
    page = page_of(record(), model=tmp_path / "a bundle")
    assert "(seed 7)" in page and "Written on 20" in page and "<td>an OS</td>" in page
    assert "<a href='a%20bundle/manifest.json'>a bundle</a>" in page and "edgeloop browse" in page


def test_percentiles_that_are_insufficient_are_no_line(page_of):
    page = page_of(record(p90_ms=1.03))
    histogram = words(SVG.findall(page)[2])
    assert {"p50 1 ms", "p90 1.03 ms"} <= histogram
    assert not any(word.startswith(("p95", "p99")) for word in histogram)


def test_profiled_operators_and_ratios_have_pictures_of_their_own(page_of):
    operators = [{"index": k, "name": f"OP_{k}", "calls": 1, "mean_us": 100.0 - k, "share": 0.03} for k in range(30)]
    operators = [op | {"delegated": True, "operator": None, "inputs": None, "output": None} for op in operators]
    pair = {"variant": "int8", "runtime": "litert", "device": "local"}
    interval = {"ratio": 0.4, "low": 0.38, "high": 0.43}
    ratio = {"of": pair, "to": pair | {"variant": "float32"}, "wall": interval, "n": 3}
    ratio["cpu"] = {"ratio": 0.4, "low": None, "high": None}
    rows = [record(variant="float32"), record(profile=operators), record(variant="float16")]
    pictures = SVG.findall(page_of(*rows, ratios=[ratio, ratio | {"cpu": None}]))
    assert len(pictures) == 1 + 1 + 1 + 2 + 3 + 2
    assert {"int8", "time relative to float32 on litert on local", "wall time", "CPU time"} <= words(pictures[2])
    assert {"0 OP_0", "24 OP_24", "5 others"} <= words(pictures[7])  # 25 bars, and one for the rest
    assert "25 OP_25" not in words(pictures[7])


def test_what_is_invalid_emulated_or_left_out_is_said_and_escaped(page_of):
    page = page_of(record(valid=False, invalid_because="throttled <hard>", functional_only=True, delegate="edgetpu"))
    assert "<p class=best>Invalid: throttled &lt;hard&gt;</p>" in page
    assert "The device is emulated" in page
    assert "<h2>int8 on litert + edgetpu on local</h2>" in page
    assert "int4 was left out: &lt;no kernel&gt;." in page
    assert "<p>times &lt;of a plan&gt;</p>" in page and "<td>int8</td>" in page


class Drawn:
    """Axes that note what is asked of them."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *positions, **style: self.calls.append((name, positions, style))

    def of(self, name) -> list[tuple]:
        return [positions for called, positions, _ in self.calls if called == name]


def series_of(**changes) -> Drawn:
    axes = Drawn()
    draw_series(axes, record(**changes))
    return axes


def test_a_throttled_reading_marks_the_time_since_the_one_before():
    during = [reading(1.0), reading(2.0, throttled=True), reading(3.0, throttled="unknown")]
    axes = series_of(conditions={"before": reading(-1.0), "during": during, "after": reading(4.0, throttled=True)})
    assert axes.of("axvspan") == [(1.0, 2.0), (3.0, 4.0)]
    assert series_of().of("axvspan") == []


def test_the_start_of_the_steady_runs_is_marked_where_there_is_one():
    assert series_of().of("axvline") == [(1.0,)]  # run 10 began at 1.0 s
    assert series_of(steady={"reached": False, "from": None, "why": "it drifts"}).of("axvline") == []


@pytest.mark.parametrize(("slowest", "scale"), [(4.9, []), (5.1, [("log",)])])
def test_a_wide_spread_has_a_logarithmic_axis_and_loses_no_run(slowest, scale):
    axes = series_of(wall_ms=[1.0] * (N - 1) + [slowest])
    assert axes.of("set_yscale") == scale
    assert axes.of("plot")[0][1] == [1.0] * (N - 1) + [slowest]


def test_conditions_are_values_or_unknown(page_of):
    page = page_of(record())
    assert "Throttled: no. Governor: ondemand. Clock: 600 to 1500 MHz." in page
    assert "Contended (wall time above CPU time): no. " in page
    assert "Unknown for all rows: contended (wall time above cpu time), temp" in page_of(record(contended="unknown"))
    nobody_knows = {"before": {}, "during": [{"throttled": "unknown", "governor": "unknown"}], "after": {}}
    assert "Unknown: throttled, governor, clock." in page_of(record(conditions=nobody_knows), record(variant="other"))
    somewhen = {"before": {}, "during": [{"throttled": True}], "after": {}}
    assert "Throttled: yes, at an unknown time." in page_of(record(conditions=somewhen))


def test_without_matplotlib_the_tables_stay_and_the_page_and_a_note_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (note,) = write_bench_report(document(record()), TABLES, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "'matplotlib' is not installed. Run: pip install 'edgeloop[plots]'" in note
    assert "<svg" not in page and "edgeloop[plots]" in page
    assert "<td>int8</td>" in page and "Governor: ondemand" in page


def test_where_the_page_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        write_bench_report(document(record()), TABLES, tmp_path / "file" / "report.html")
