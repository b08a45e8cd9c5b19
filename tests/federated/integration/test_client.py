"""The device's ClientApp: what it loads, what it takes for a shard, what it refuses."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from edgeloop.errors import DataError, IntegrityError

pytest.importorskip("flwr")

CLIENT = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from edgeloop.runtime.agent.trainer import Trainer
from edgeloop.federated.device.client_app import app
TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
model = Path(sys.argv[1]).read_bytes()
how = {"epochs": 1, "lr": 0.1, "seed": 0, "server-round": 1}
config = {"model": model, "sha256": hashlib.sha256(model).hexdigest(), **how}
arrays = {name: Array(array) for name, array in Trainer(model).get_weights().items()}
content = RecordDict({"arrays": ArrayRecord(arrays), "config": ConfigRecord(config)})
message = Message(content, dst_node_id=1, message_type="train")
message.metadata.__dict__["_message_id"] = "1"
reply = app(message, Context(1, 1, {"device": 0, "data": sys.argv[2]}, RecordDict(), {}))
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([dict(reply.content["metrics"]), sorted(reply.content["arrays"]), loaded]))
"""


def test_a_client_trains_without_tensorflow_even_where_tensorflow_is_installed(tmp_path):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import to_trainable

    model = keras.Sequential([keras.Input((8,), name="features"), keras.layers.Dense(3)])
    (tmp_path / "t.tflite").write_bytes(to_trainable(model))
    np.savez(tmp_path / "shard.npz", x=np.zeros((5, 8), np.float32), y=np.array([0, 1, 2, 0, 1]))
    command = [sys.executable, "-I", "-c", CLIENT, str(tmp_path / "t.tflite"), str(tmp_path / "shard.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    metrics, arrays, loaded = json.loads(done.stdout.splitlines()[-1])
    assert (metrics["num-examples"], metrics["device"], arrays) == (5, 0, ["w000", "w001"])
    assert "ai_edge_litert" in loaded  # the control: what it uses is seen
    assert not {"tensorflow", "keras", "tf_keras"} & set(loaded)


def test_a_client_that_fails_replies_with_the_error(tmp_path):
    pytest.importorskip("flwr")
    script = """
import json, sys
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from edgeloop.federated.device.client_app import app
TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
message = Message(RecordDict({"config": ConfigRecord({"model": b"m", "sha256": "0" * 64})}), 1, "train")
message.metadata.__dict__["_message_id"] = "1"
reply = app(message, Context(1, 1, {"device": 3, "data": "a.npz"}, RecordDict(), {}))
print(json.dumps([list(reply.content), dict(reply.content["error"])]))
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    records, error = json.loads(done.stdout.splitlines()[-1])
    assert records == ["error"] and error["device"] == "3"
    said = json.loads(error["error"])
    assert (said["type"], said["exit_code"]) == ("IntegrityError", 9)
    assert said["found"] == "it failed, and the device tells the reason to its owner alone"
    assert "edgeloop: train failed: the model arrived with sha256" in done.stderr


def test_the_device_environment_has_no_tensorflow(device_python):
    command = [str(device_python), "-I", "-c", "import edgeloop.federated.device.client_app, tensorflow"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert "ModuleNotFoundError: No module named 'tensorflow'" in done.stderr


def test_a_model_that_is_not_the_servers_is_refused():
    from edgeloop.federated.device.models import check_hash

    check_hash(b"model", hashlib.sha256(b"model").hexdigest())
    with pytest.raises(IntegrityError, match="the server sent 0000"):
        check_hash(b"model", "0" * 64)


@pytest.mark.parametrize("name", ["x", "features", "in/features"])
def test_a_lone_input_may_go_by_its_name_or_as_x(tmp_path, name):
    from edgeloop.federated.device.data.npz import read_shard

    np.savez(tmp_path / "shard.npz", **{name: np.ones((2, 8)), "y": np.array([0, 1])})
    inputs, y = read_shard(tmp_path / "shard.npz", ("features",))
    assert {name: array.shape for name, array in inputs.items()} == {"features": (2, 8)}
    assert y.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "is not a shard"),
        (b"no npz at all", "is not a shard"),
        (b"PK\x03\x04 a broken one", "is not a shard"),
        (np.zeros(3), "one bare array"),
        ({"features": np.zeros((2, 8))}, r"holds \['features'\] and no labels. Add an array named y"),
        ({"features": np.array([{}]), "y": np.zeros(1, int)}, "is not a shard .*[Oo]bject arrays"),
    ],
)
def test_a_file_that_is_no_shard_is_named(tmp_path, content, says):
    from edgeloop.federated.device.data.npz import read_shard

    path = tmp_path / "shard.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        with path.open("wb") as file:
            np.save(file, content)
    with pytest.raises(DataError, match=says) as raised:
        read_shard(path, ("features",))
    assert str(path) in str(raised.value)
