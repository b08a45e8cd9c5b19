"""TensorBoard's own reader shows what a run wrote."""

import json
import subprocess
import sys

import pytest

from edgeloop.federated.rounds.progress.event_file import EventFile

pytest.importorskip("tensorboard")

READ = """
import json, sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")  # TensorBoard then leaves TensorFlow alone
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(sys.argv[1])
found.Reload()
tags = found.Tags()["scalars"]
print(json.dumps({tag: [[e.step, e.wall_time, e.value] for e in found.Scalars(tag)] for tag in tags}))
"""


def test_tensorboard_reads_the_events(tmp_path):
    file = EventFile(tmp_path, 1000.0)
    file.add(1, 1001.5, {"accuracy": 0.25, "MB from devices": 8.0})
    file.add(200, 1002.5, {"accuracy": 0.5})
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = {"accuracy": [[1, 1001.5, 0.25], [200, 1002.5, 0.5]], "MB from devices": [[1, 1001.5, 8.0]]}
    assert json.loads(done.stdout.splitlines()[-1]) == expected
