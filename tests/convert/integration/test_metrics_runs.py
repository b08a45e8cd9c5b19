"""Real models with labels that are numbers, and 0 and 1: the metrics of the proof are those of the interpreter here."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgeloop.bundle import Format, Scheme
from edgeloop.canonical import read_json
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.present import conversion
from edgeloop.convert.search.search import SearchOptions
from edgeloop.errors import DataError

TFLITE = (Format.TFLITE,)


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """Three sums of six features, and one bend; a net with one output [n, 1] that is 10% off."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("houses")
    rng = np.random.default_rng(5)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    w1, w2 = rng.normal(size=(6, 8)).astype(np.float32), rng.normal(size=(8, 1)).astype(np.float32)
    y = (np.maximum(x @ w1, 0) @ w2)[:, 0].astype(np.float64)
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [keras.Input((6,), name="x"), keras.layers.Dense(8, "relu"), keras.layers.Dense(1, name="price")]
    )
    model.set_weights([w1, np.zeros(8), w2, np.zeros(1)])
    model.save(folder / "net.keras")
    noisy = y + rng.normal(size=300) * 0.1 * y.std()
    np.savez(folder / "cal.npz", x=x)
    np.savez(folder / "eval.npz", x=x, y=noisy[:, None])
    return SimpleNamespace(folder=folder, x=x, y=noisy, source=y)


def answers(bundle, variant, x):
    from ai_edge_litert.interpreter import Interpreter

    data = bundle.file(bundle.variant(variant).entry).read_bytes()
    runner = Interpreter(model_content=data).get_signature_runner()
    return np.concatenate([next(iter(runner(x=x[i : i + 1]).values())) for i in range(len(x))])[:, 0].astype(float)


def test_a_net_that_predicts_numbers_has_its_errors_in_the_proof_the_table_and_the_search(houses, tmp_path):
    options = ConvertOptions(
        to=TFLITE,
        schemes=(Scheme.FLOAT32,),
        calibration=houses.folder / "cal.npz",
        evaluation=houses.folder / "eval.npz",
        search=SearchOptions(max_drop_pp=5.0, max_slowdown=None),
        cache=False,
    )
    made = convert(houses.folder / "net.keras", tmp_path / "b", options)
    (row,) = [r for r in made.parity if r.variant == "float32" and r.runtime == "litert"]
    error = answers(made.bundle, "float32", houses.x) - houses.y
    assert row.rmse == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert row.mae == pytest.approx(np.mean(np.abs(error)), rel=1e-5)
    assert row.r2 == pytest.approx(1 - np.mean(error**2) / houses.y.var(), rel=1e-5)
    assert (row.accuracy, row.auc, row.top1_agreement) == (None, None, None)
    evaluation = read_json(made.bundle.file("proof.json").read_bytes(), "proof.json")["evaluation"]
    assert evaluation["metric"] == "rmse" and evaluation["source"]["rmse"] == pytest.approx(row.rmse, rel=1e-4)
    assert made.search is not None and (made.search["metric"], made.search["unit"]) == ("RMSE", "%")
    best = made.search["tried"][made.search["best"]]
    assert best["value"] <= 1.05 * made.search["reference"]
    assert any("within 5% of RMSE is" in note for note in made.notes)
    (table,) = conversion(made.bundle, made.parity, made.notes).tables
    assert list(table.columns)[2:5] == ["RMSE", "R²", "MAE"]


def test_labels_that_fit_no_output_are_refused_with_the_shapes_that_do(houses, tmp_path):
    np.savez(tmp_path / "wide.npz", x=houses.x, y=np.zeros((300, 3)) + 0.5)
    with pytest.raises(DataError, match=r"y of float64 \[300, 3\], and the model answers \[300, 1\] in 'price'"):
        convert(
            houses.folder / "net.keras", tmp_path / "b", ConvertOptions(to=TFLITE, evaluation=tmp_path / "wide.npz")
        )


def test_a_score_with_labels_of_0_and_1_has_an_auc(houses, tmp_path):
    anomaly = houses.source > np.quantile(houses.source, 0.8)  # the net tells them apart without an error
    np.savez(tmp_path / "e.npz", x=houses.x, y=anomaly)
    options = ConvertOptions(
        to=TFLITE,
        schemes=(Scheme.FLOAT32, Scheme.INT8),
        calibration=houses.folder / "cal.npz",
        evaluation=tmp_path / "e.npz",
        cache=False,
    )
    made = convert(houses.folder / "net.keras", tmp_path / "b", options)
    rows = {r.variant: r for r in made.parity if r.runtime == "litert"}
    assert rows["float32"].auc == pytest.approx(1.0) and rows["float32"].accuracy is None
    given = answers(made.bundle, "int8", houses.x)
    yes, no = given[anomaly][:, None], given[~anomaly][None]
    assert rows["int8"].auc == pytest.approx(float(np.mean((yes > no) + 0.5 * (yes == no))), abs=1e-9)
