"""`edgeloop federate init` writes an app that Flower builds and whose code is complete."""

import ast
import tomllib

import pytest

from edgeloop.bundle import Format, Manifest, Scheme, Signature, Variant, file_entries
from edgeloop.errors import ModelError, OptionsError
from edgeloop.federated.network.plain_app import write_plain_app


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / 'a "bundle"'
    folder.mkdir()
    (folder / "t.tflite").write_bytes(b"model")
    variant = Variant("trainable", "t.tflite", ("t.tflite",), Format.TFLITE, Scheme.FLOAT32, ("train",))
    manifest = Manifest("m", 1, {}, file_entries(folder), {"train": Signature((), ())}, (variant,))
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder


def test_flower_takes_the_app(bundle, tmp_path):
    files = write_plain_app(tmp_path / "My App", bundle)
    assert all(file.is_file() for file in files)
    config = tomllib.loads(files[0].read_text())
    assert config["project"]["name"] == "my-app"
    assert config["tool"]["flwr"]["app"]["config"]["model"] == str(bundle / "t.tflite")
    for file in files[1:]:
        ast.parse(file.read_text())
    flwr = pytest.importorskip("flwr.cli.config_utils")
    _, warnings = flwr.load_and_validate(files[0], check_module=True)  # raises where Flower would not run it
    assert warnings == []


def test_a_folder_that_exists_and_a_bundle_that_cannot_train_are_refused(bundle, tmp_path):
    with pytest.raises(OptionsError, match="exists"):
        write_plain_app(tmp_path, bundle)
    with pytest.raises(OptionsError, match="no letter"):
        write_plain_app(tmp_path / "---", bundle)
    manifest = Manifest("m", 1, {}, file_entries(bundle), {}, ())
    (bundle / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(ModelError, match="has no trainable variant"):
        write_plain_app(tmp_path / "app", bundle)
    assert not (tmp_path / "app").exists()
