"""A real dispatcher and two real workers on loopback: each batch once, also when one of them is killed."""

import os
import signal
import time

import numpy as np
import pytest

from edgeloop.cloud.input.damage import named_damage
from edgeloop.cloud.input.options import DataOptions, PipelineOptions
from edgeloop.cloud.input.pipeline import batches
from edgeloop.cloud.input.readers import open_examples
from edgeloop.cloud.input.service.local import local_service
from edgeloop.cloud.input.service.reading import bounded
from edgeloop.errors import DeviceError
from edgeloop.processes.ports import free_ports

tf = pytest.importorskip("tensorflow")

N = 3000
BATCH = 10


@pytest.fixture(scope="module")
def service():
    with local_service(workers=2) as running:
        yield running


@pytest.fixture
def rows(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.arange(N, dtype=np.float32)[:, None], y=np.zeros(N, np.int64))
    return open_examples(DataOptions(path=tmp_path / "d.npz"))


def options(service):
    return PipelineOptions(batch=BATCH, service=service.address, service_timeout_s=60.0)


def test_every_batch_of_an_epoch_comes_once_from_two_workers(service, rows):
    seen = [x[:, 0].numpy() for x, _ in batches(rows, options(service), seed=1, epochs=1)]
    alone = [x[:, 0].numpy() for x, _ in batches(rows, PipelineOptions(batch=BATCH), seed=1, epochs=1)]
    assert sorted(map(tuple, seen)) == sorted(map(tuple, alone))


def test_a_killed_worker_costs_no_more_than_it_was_making(service, rows):
    """It is started again on its port, and the reading ends: without that it would wait for the dead one's part."""
    seen = []
    for k, (x, _) in enumerate(batches(rows, options(service), seed=1, epochs=1)):
        seen += x[:, 0].numpy().tolist()
        if k == 20:
            os.kill(service.pids["worker 1"], signal.SIGKILL)
    assert len(seen) == len(set(seen))
    assert len(seen) >= N - 64 * BATCH  # what the worker had made and not sent yet; its buffers hold a few batches


def test_a_service_that_is_not_there_is_an_error(rows):
    (port,) = free_ports(1)
    options = PipelineOptions(batch=BATCH, service=f"127.0.0.1:{port}", service_timeout_s=0.2)
    with pytest.raises(DeviceError, match=rf"no tf\.data service answers at 127\.0\.0\.1:{port}"):
        batches(rows, options)


def test_a_step_that_waits_for_a_service_ends_with_its_error(rows):
    def silent():
        time.sleep(2)
        yield from ()

    waiting = tf.data.Dataset.from_generator(
        lambda: bounded(silent(), 0.2, "localhost:1"), output_signature=tf.TensorSpec(())
    )
    with pytest.raises(DeviceError, match=r"localhost:1 sent nothing for 0\.2 s"), named_damage(rows):
        list(waiting)
