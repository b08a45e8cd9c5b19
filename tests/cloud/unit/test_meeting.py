"""Tasks that find each other before TensorFlow starts: a missing task and a taken port are one line."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgeloop.cloud.train.cluster.cluster import read_cluster
from edgeloop.cloud.train.cluster.meeting import check_own_port, meet
from edgeloop.errors import DeviceError
from edgeloop.processes.ports import free_ports


def cluster(addresses, role="worker", index=0):
    return read_cluster(json.dumps({"cluster": addresses, "task": {"type": role, "index": index}}))


def local(count):
    return [f"127.0.0.1:{port}" for port in free_ports(count)]


def test_tasks_that_all_come_meet():
    workers, done = {"worker": local(3)}, threading.Barrier(3)

    def start(index):
        meet(cluster(workers, index=index), timeout_s=10)
        with socket.create_server(("127.0.0.1", int(workers["worker"][index].rpartition(":")[2]))):  # as TensorFlow's
            done.wait(timeout=10)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(start, range(3)))


def test_a_worker_that_never_starts_is_named_with_its_address():
    workers = local(2)
    with pytest.raises(DeviceError, match=rf"worker 0 waited 0.1 s for worker 1 \({workers[1]}\), which did not start"):
        meet(cluster({"worker": workers}), timeout_s=0.1)


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = cluster({"chief": local(1), "ps": [address], "worker": local(1)}, "ps")
        with pytest.raises(DeviceError, match=f"ps 0 cannot listen at {address}: Address already in use"):
            check_own_port(found)
