"""A net of which int8 makes garbage, and the mix that repairs it, with the real quantizer and the real runtime."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import Scheme
from edgeloop.convert.forms.tflite import calibrate, lower, quantize
from edgeloop.convert.samples import Samples
from edgeloop.convert.search.metric import Metric
from edgeloop.convert.search.mix import MixSearchJob, find_mix
from edgeloop.convert.search.pareto import search_document
from edgeloop.convert.search.rank import rank_layers
from edgeloop.convert.search.report import search_report
from edgeloop.convert.search.search import SearchOptions
from edgeloop.errors import BudgetError
from edgeloop.files.flatbuffer import read_tflite

HOSTILE = 1000.0
# no limit on latency: what is found must not depend on how busy the machine is
OPTIONS = SearchOptions(max_drop_pp=0.5, max_slowdown=None)


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> MixSearchJob:
    """Handwritten digits by three convolutions, of which the second has one channel scaled up by 1000 that the third
    scales down again. In float nothing changes, bar rounding; int8 has one scale for all channels of an activation."""
    keras = pytest.importorskip("keras")
    datasets = pytest.importorskip("sklearn.datasets")
    from edgeloop.convert.forms.freeze import freeze
    from edgeloop.convert.sources.source import open_source

    keras.utils.set_random_seed(3)
    digits = datasets.load_digits()
    x, y = (digits.images[..., None] / 16).astype(np.float32), digits.target.astype(np.int64)
    L = keras.layers
    conv = [L.Conv2D(n, 3, activation="relu", name=f"conv{k}") for k, n in enumerate((8, 16, 24))]
    head = [L.Flatten(), L.Dense(32, activation="relu", name="dense"), L.Dense(10, activation="softmax", name="p")]
    model = keras.Sequential([keras.Input((8, 8, 1), name="image"), *conv, *head])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1200], y[:1200], epochs=8, batch_size=32, verbose=0)
    kernel, bias = conv[1].get_weights()
    conv[1].set_weights(
        [kernel * np.where(np.arange(16) == 0, HOSTILE, 1), bias * np.where(np.arange(16) == 0, HOSTILE, 1)]
    )
    kernel, bias = conv[2].get_weights()
    conv[2].set_weights([kernel / np.where(np.arange(16) == 0, HOSTILE, 1)[:, None], bias])
    path = tmp_path_factory.mktemp("hostile") / "digits.keras"
    model.save(path)
    source = open_source(path, None)
    float32 = lower(freeze(source).composite, source)
    return MixSearchJob(
        float32=float32,
        calibration=calibrate(float32, source, Samples(inputs={"image": x[:200]})),
        signature=source.signature,
        samples=Samples(inputs={"image": x[1200:]}, labels=y[1200:]),
        expected={source.outputs[0].name: np.asarray(model.predict(x[1200:], verbose=0))},
        batch=None,
    )


@pytest.fixture(scope="module")
def found(job, tmp_path_factory):
    journal = tmp_path_factory.mktemp("journal") / "bundle.search.jsonl"
    return find_mix(job, OPTIONS, journal), journal


def accuracy(job, data):
    from ai_edge_litert.interpreter import Interpreter

    (out,) = Interpreter(model_content=data).get_signature_runner(job.signature)(**job.samples.inputs).values()
    return float(np.mean(out.argmax(-1) == job.samples.labels))


def test_the_ranking_puts_the_layer_first_where_the_damage_shows_and_names_the_one_before(job):
    int8 = quantize(job.float32, Scheme.INT8, job.calibration)
    layers = rank_layers(job.float32, int8, job.samples, job.signature)
    worst = max(layers, key=lambda layer: layer.damage)
    assert "conv2" in worst.tensor and len(worst.inputs) == 1 and "conv1" in worst.inputs[0]
    assert len(worst.operators) == 2  # Flatten moves its values and stays with it
    # 3 * 3 * 16 * 24 weights and 24 biases of 4 bytes, and the two sizes that the reshape takes
    assert worst.bytes == 4 * (3 * 3 * 16 * 24 + 24) + 8


def test_only_the_hostile_layers_stay_in_float_and_the_budget_is_met(job, found):
    mix, _ = found
    (reference,) = job.expected.values()
    source = float(np.mean(reference.argmax(-1) == job.samples.labels))
    # the interpreter here, without agents: int8 loses far more than the budget, the mix does not
    assert accuracy(job, quantize(job.float32, Scheme.INT8, job.calibration)) < source - 0.3
    assert accuracy(job, mix.data) >= source - 0.005
    assert {name.split("/")[1].split("_")[0] for name in mix.found.best.keep} <= {"conv1", "conv2", "flatten"}
    assert mix.found.best.keep and mix.metric is Metric.ACCURACY
    float16 = next(c for c in mix.found.tried if c.scheme is Scheme.FLOAT16)
    assert len(mix.data) == mix.found.best.bytes < float16.bytes
    assert len(mix.found.tried) + len(mix.found.refused) <= 50


def test_the_file_computes_in_both_kinds_of_numbers(found):
    mix, _ = found
    graph = read_tflite(mix.data).graphs[0]
    kinds = {graph.tensors[op.outputs[0]].dtype for op in graph.operators if op.name in ("CONV_2D", "FULLY_CONNECTED")}
    assert "int8" in kinds and kinds & {"float32", "int16"}


def test_an_operator_without_weights_that_keeps_float16_computes_in_float(job):
    graph = read_tflite(job.float32).graphs[0]
    keep = {graph.tensors[op.outputs[0]].name: Scheme.FLOAT16 for op in graph.operators}
    kept = read_tflite(quantize(job.float32, Scheme.INT8, job.calibration, keep=keep)).graphs[0]
    assert {kept.tensors[i].dtype for op in kept.operators for i in op.outputs} == {"float32"}


def test_again_with_its_journal_nothing_is_evaluated(job, found):
    mix, journal = found
    lines = journal.read_bytes()
    again = find_mix(job, OPTIONS, journal)
    tried = len(mix.found.tried) + len(mix.found.refused)
    assert again.found.resumed == tried and journal.read_bytes() == lines
    assert again.data == mix.data


def test_the_report_and_the_document_hold_the_front(found):
    mix, _ = found
    document = search_document(mix.found)
    assert document["tried"][document["best"]]["sha256"] == mix.found.best.sha256
    assert document["best"] in document["front"] and document["tried"][document["best"]]["holds"]
    assert all(row["latency_ms"] > 0 and row["latency_ratio"] > 0 for row in document["tried"])
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed: pip install 'edgeloop[plots]'")
    page = search_report("digits", document, Path("out/digits"), Path("out/digits.report.html"))
    assert page.count("<svg") == 1
    leads_to = re.findall(r"(?:src|href)=[\"']?(?![\"']?#)[^ >]*", page)
    assert leads_to == ["href='digits/manifest.json'"]  # it needs nothing beside it


def test_a_budget_out_of_reach_is_an_error_with_the_best(job):
    right = {name: np.eye(10, dtype=np.float32)[job.samples.labels] for name in job.expected}
    claims = replace(job, expected=right)  # as if the source were always right, which this model is not
    with pytest.raises(
        BudgetError, match=r"budget of 0.5 points of accuracy: the best of \d tried is .* below the source's 100.00%"
    ):
        find_mix(claims, OPTIONS)
