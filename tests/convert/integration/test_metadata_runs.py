"""Metadata inside a .tflite changes nothing that a runtime computes, for one signature or several."""

import subprocess

import numpy as np
import pytest

from edgeloop.convert.forms.metadata import with_metadata
from edgeloop.convert.sources.source import open_source
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.files.metadata import Metadata, TensorMetadata, read_metadata

FACTS = Metadata(
    name="pets", inputs=(TensorMetadata(name="image"),), outputs=(TensorMetadata(name="p", labels=("cat", "dog")),)
)
RUN = """
import sys, importlib, numpy as np
Interpreter = importlib.import_module(sys.argv[1]).Interpreter
x = np.linspace(-1, 1, 36, dtype=np.float32).reshape(3, 2, 2, 3)
for how in ({"model_path": sys.argv[2]}, {"model_content": open(sys.argv[2], "rb").read()}):
    print(Interpreter(**how).get_signature_runner("infer")(image=x)["p"].tobytes().hex())
"""


@pytest.mark.parametrize("runtime", ["ai_edge_litert.interpreter", "tflite_runtime.interpreter"])
def test_a_runtime_answers_the_same_with_metadata_and_without(root, device_python, tmp_path, runtime):
    bare = (root / "tests" / "golden" / "metadata" / "bare.tflite").read_bytes()
    answers = []
    for name, data in (("bare", bare), ("with", with_metadata(bare, FACTS))):
        file = tmp_path / f"{name}.tflite"
        file.write_bytes(data)
        command = [device_python, "-I", "-c", RUN, runtime, file]
        done = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True)
        answers += done.stdout.split()
    assert len(answers) == 4  # by path and by content, without and with
    assert len(set(answers)) == 1


def test_every_signature_of_a_model_is_described(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Scaler(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="a")])
        def double(self, a):
            return {"twice": 2.0 * a}

        @tf.function(
            input_signature=[tf.TensorSpec([None, 2], tf.float32, "b"), tf.TensorSpec([None, 2], tf.float32, "a")]
        )
        def add(self, b, a):
            return {"sum": a + b}

    scaler = Scaler()
    tf.saved_model.save(scaler, tmp_path / "s", signatures={"double": scaler.double, "add": scaler.add})
    data = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "s")).convert()
    facts = Metadata(
        name="scaler",
        inputs=(TensorMetadata(name="b", description="second"), TensorMetadata(name="a", description="first")),
        outputs=(TensorMetadata(name="twice", labels=("left", "right")), TensorMetadata(name="sum")),
    )
    made = with_metadata(data, facts)
    read = read_metadata(made)
    for found, told in ((read.inputs, facts.inputs), (read.outputs, facts.outputs)):
        assert sorted(found, key=lambda t: t.name) == sorted(told, key=lambda t: t.name)  # each once
    assert read_tflite(made).signatures == read_tflite(data).signatures
    (tmp_path / "with.tflite").write_bytes(made)
    source = open_source(tmp_path / "with.tflite", "double")  # metadata is no obstacle to taking it as a source
    (twice,) = source.call({"a": np.array([[1, 2]], np.float32)}).values()
    np.testing.assert_array_equal(twice, [[2, 4]])
