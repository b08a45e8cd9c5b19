"""The devices of a simulation: whose the samples are, who is slow, who drops out."""

import numpy as np
import pytest

from edgeloop.errors import DataError, DeviceError, OptionsError
from edgeloop.federated.device.data.samples import Samples
from edgeloop.federated.rounds.federation import read_federation
from edgeloop.federated.simulation.options import Partition, SimulationOptions
from edgeloop.federated.simulation.partition import by_group, by_shards, evenly
from edgeloop.federated.simulation.population import Population, examples_of, read_device, split, write_samples
from edgeloop.processes.ports import free_ports


def options(**more) -> SimulationOptions:
    return SimulationOptions(**{"data": "data.npz", "nodes": 4, **more})


def test_an_even_split_gives_every_index_to_one_device():
    parts = evenly(103, 10, seed=1)
    assert sorted(np.concatenate(parts)) == list(range(103))
    assert sorted(map(len, parts)) == [10] * 7 + [11] * 3  # 103 = 7 * 10 + 3 * 11


def test_shards_of_sorted_labels_leave_a_device_two_labels():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
    parts = by_shards(labels, 30, 2, seed=5)  # 60 shards of 10, six of each label: none has two labels
    assert sorted(np.concatenate(parts)) == list(range(600))
    assert {len(part) for part in parts} == {20}
    assert all(len(set(labels[part])) <= 2 for part in parts)
    assert not np.array_equal(parts[0], by_shards(labels, 30, 2, seed=6)[0])


def test_a_group_is_a_device():
    parts = by_group(np.array([7, 3, 7, 5, 3]), 3)
    assert [part.tolist() for part in parts] == [[1, 4], [3], [0, 2]]
    with pytest.raises(DataError, match="has 3 groups for 4 devices"):
        by_group(np.array([7, 3, 5]), 4)


def test_a_slow_device_takes_its_factor_longer():
    # 3 epochs of 50 samples at 100 a second are 1.5 s; the slow half takes 10 times as long
    population = Population(options(slow_share=0.5), np.full(4, 50))
    seconds = sorted(population.fate(device, 1, 1, 3).seconds for device in range(4))
    assert seconds == [1.5, 1.5, 15.0, 15.0]


def test_as_many_devices_drop_out_as_the_share_says_and_each_attempt_draws_anew():
    population = Population(options(nodes=2000, dropout=0.1, seed=3), np.ones(2000))
    dropped = [
        {device for device in range(2000) if population.fate(device, number, attempt, 1).drops_out}
        for number, attempt in ((1, 1), (1, 2), (2, 1))
    ]
    # 2000 draws at 0.1: mean 200, standard deviation 13.4; six of them are 80
    assert all(abs(len(found) - 200) < 80 for found in dropped)
    assert dropped[0] != dropped[1] != dropped[2]
    again = Population(options(nodes=2000, dropout=0.1, seed=3), np.ones(2000))
    assert dropped[0] == {device for device in range(2000) if again.fate(device, 1, 1, 1).drops_out}


def test_a_device_reads_its_samples_as_they_were(tmp_path):
    x = np.arange(48, dtype=np.uint8).reshape(6, 2, 4)
    columns, kind = {"x": x, "who": np.array([1.0, 0, 1, 1, 0, 2])}, {"pixels": True, "shaped": False, "ordered": False}
    samples = Samples("mine", columns, np.arange(6), **kind)
    kept, parts = split(options(nodes=3, partition=Partition.NATURAL, group="who"), samples)
    write_samples(tmp_path, kept, parts)
    assert examples_of(tmp_path).tolist() == [2, 3, 1]
    device = read_device(tmp_path, 1)
    assert list(device.columns) == ["x"] and device.pixels and not device.shaped and not device.ordered
    np.testing.assert_array_equal(device.columns["x"], x[[0, 2, 3]])
    assert device.y.tolist() == [0, 2, 3]
    assert device.source == "mine, device 1"


def test_a_group_that_the_data_lacks_is_named():
    samples = Samples("mine.npz", {"x": np.zeros((4, 2)), "writer": np.zeros(4)}, np.arange(4))
    with pytest.raises(DataError, match=r"mine.npz has no 'who'.*It has: writer, x"):
        split(options(partition=Partition.NATURAL, group="who"), samples)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"nodes": 0}, "nodes is 0"),
        ({"dropout": 1.0}, "dropout is 1"),
        ({"slow_share": 1.5}, "slow-share is 1.5"),
        ({"slow_factor": 0.0}, "slow-factor is 0"),
        ({"examples_per_s": float("nan")}, "examples-per-s is nan"),
        ({"workers": 0}, "workers is 0"),
        ({"ray_address": "head"}, "ray-address is 'head'"),
        ({"ray_address": "head:0"}, "ray-address is 'head:0'"),
        ({"ray_address": "head:6379", "workers": 2}, "workers is given, and so is a Ray cluster"),
        ({"alpha": 0.5}, 'alpha is given, and partition is iid. It belongs to partition = "dirichlet"'),
        ({"partition": Partition.DIRICHLET, "alpha": 0.0}, "alpha is 0"),
        ({"partition": Partition.DIRICHLET, "shards_per_node": 2}, "shards-per-node is given"),
        ({"partition": Partition.SHARDS, "shards_per_node": 0}, "shards-per-node is 0"),
        ({"partition": Partition.NATURAL}, "partition is natural, and group is missing"),
    ],
)
def test_options_that_cannot_be_are_refused(given, says):
    with pytest.raises(OptionsError, match=says):
        options(**given)


def test_a_ray_cluster_that_nobody_runs_is_named_before_anything_starts():
    pytest.importorskip("ray")
    from edgeloop.federated.simulation.process import simulation_process

    (port,) = free_ports(1)
    samples = Samples("all.npz", {"x": np.zeros((4, 1))}, np.zeros(4, int))
    with (
        pytest.raises(DeviceError, match=f"no Ray cluster listens at 127.0.0.1:{port}"),
        simulation_process(options(ray_address=f"127.0.0.1:{port}"), 1.0, samples, evenly(4, 4)),
    ):
        pass


def test_buffered_rounds_are_not_simulated(tmp_path):
    pytest.importorskip("flwr")
    from edgeloop.federated.rounds.buffered.options import BufferedOptions
    from edgeloop.federated.rounds.options import RoundsOptions
    from edgeloop.federated.rounds.run_rounds import run_rounds
    from edgeloop.federated.simulation.simulated import Simulated
    from edgeloop.runtime.device import parse_device

    given = {"devices": (parse_device("local"),), "buffered": BufferedOptions(size=1, concurrency=1)}
    rounds = RoundsOptions(shards=(tmp_path / "device 0",), out=tmp_path, **given)
    with pytest.raises(OptionsError, match="simulated rounds are synchronous"):
        run_rounds("bundle", rounds, simulated=Simulated(options(), 60.0))


def test_the_data_of_a_file_lies_beside_it(tmp_path):
    (tmp_path / "all.npz").write_bytes(b"")
    text = (
        '[model]\nbundle = "b"\n[simulation]\ndata = "all.npz"\nnodes = 1000\npartition = "shards"\nslow-share = 0.1\n'
    )
    (tmp_path / "f.toml").write_text(text)
    found = read_federation(tmp_path / "f.toml").simulation
    assert found == SimulationOptions(
        data=str(tmp_path / "all.npz"), nodes=1000, partition=Partition.SHARDS, slow_share=0.1
    )


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ('[devices]\nshards = ["a.npz"]\n', r"\[devices\]"),
        ('[network]\nlisten = "192.0.2.7:9092"\ndevices = 2\ninsecure = true\n', r"\[network\]"),
    ],
)
def test_tables_of_other_devices_are_refused_beside_those_of_a_simulation(tmp_path, table, name):
    from edgeloop.federated.commands.simulate import simulate

    path = tmp_path / "f.toml"
    path.write_text('[model]\nbundle = "b"\n[simulation]\ndata = "all.npz"\n' + table)
    with pytest.raises(OptionsError, match=f"has {name}, and the devices of a simulation"):
        simulate(None, path, tmp_path / "out", None, None, None, False)
