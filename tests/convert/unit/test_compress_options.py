"""What pruning, clustering and QAT refuse before a framework is loaded."""

import importlib.util

import pytest

from edgeloop.convert.compression.compress import CompressOptions, CompressResult, Kernel, compress
from edgeloop.errors import MissingExtra, OptionsError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no compression was chosen"),
        ({"prune": 0.0}, "--prune is 0.0"),
        ({"prune": 1.0}, "--prune is 1.0"),
        ({"prune": 50}, "--prune is 50"),
        ({"cluster": 1}, "It must be 2 to 256"),
        ({"cluster": 257}, "It must be 2 to 256"),
        ({"cluster": 2, "prune": 0.5}, "It must be 3 to 256 together with --prune"),
        ({"qat_epochs": 0}, "--qat is 0"),
        ({"prune": 0.5, "epochs": 0}, "epochs is 0"),
        ({"prune": 0.5, "batch": 0}, "batch is 0"),
        ({"prune": 0.5, "learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"prune": 0.5, "learning_rate": float("nan")}, "learning_rate is nan"),
        ({"prune": 0.5, "seed": -1}, "seed is -1"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(given, said):
    with pytest.raises(OptionsError, match=said):
        CompressOptions(**given)


@pytest.mark.parametrize("given", [{"prune": 0.01}, {"cluster": 2}, {"cluster": 3, "prune": 0.5}, {"qat_epochs": 1}])
def test_the_ends_of_every_range_are_taken(given):
    CompressOptions(**given)


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"tensorflow_model_optimization.*pip install 'edgeloop\[convert\]'"):
        compress(tmp_path / "m.keras", CompressOptions(prune=0.5), tmp_path / "t.npz", tmp_path)


def test_sparsity_is_of_all_kernels_and_clusters_of_the_clustered_ones(tmp_path):
    kernels = (
        Kernel(name="a", values=30, zeros=15, distinct=8, pruned=True, clustered=True),
        Kernel(name="b", values=10, zeros=0, distinct=10, pruned=False, clustered=False),
    )
    made = CompressResult(
        path=tmp_path, notes=(), accuracy_before=1.0, accuracy_after=1.0, kernels=kernels, gzip_bytes=(2, 1)
    )
    assert made.sparsity == 15 / 40 and made.clusters == 8
