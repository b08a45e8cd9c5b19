"""What `--launch` names, and the TF_CONFIG of each task."""

import json
from functools import partial

import pytest

from edgeloop.cloud.train.cluster.cluster import Role, read_cluster
from edgeloop.cloud.train.cluster.launching import Task, addresses, parse_tasks, tf_config
from edgeloop.cloud.train.cluster.task import launch_run
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.errors import OptionsError, WriteError
from edgeloop.progress import silent


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("2", {"worker": 2}),
        ("worker=2,evaluator=1", {"worker": 2, "evaluator": 1}),
        ("chief=1,worker=1", {"chief": 1, "worker": 1}),
        ("ps=2,worker=2", {"chief": 1, "worker": 2, "ps": 2}),
    ],
)
def test_tasks_are_a_count_of_workers_or_counts_by_role(text, tasks):
    assert {role.value: count for role, count in parse_tasks(text).items()} == tasks


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", "--launch is '0'"),
        ("wroker=2", "--launch has the task 'wroker'"),
        ("worker=two", "--launch is 'worker=two'"),
        ("worker=1,worker=2", "--launch is 'worker=1,worker=2'"),
        ("ps=1", "--launch is 'ps=1'"),
        ("evaluator=1", "--launch is 'evaluator=1'"),
        ("chief=2,worker=1", "--launch is 'chief=2,worker=1'"),
        ("worker=1000", "--launch is 'worker=1000'"),
    ],
)
def test_what_makes_no_cluster_is_refused(text, found):
    with pytest.raises(OptionsError, match=found):
        parse_tasks(text)


def test_a_launch_is_refused_before_anything_starts(tmp_path, monkeypatch):
    config = TrainConfig(data=DataConfig(path=tmp_path / "x.npz"))
    launch = partial(launch_run, config, progress=silent, say=lambda line: None)
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(WriteError, match="holds files that no training wrote"):
        launch(tmp_path, "2")
    with pytest.raises(OptionsError, match="has the task 'wroker'"):
        launch(tmp_path / "run", "wroker=2")
    monkeypatch.setenv("TF_CONFIG", "{}")
    with pytest.raises(OptionsError, match="TF_CONFIG makes this process a task of one"):
        launch(tmp_path / "run", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_every_task_gets_the_same_cluster_and_its_own_place_in_it():
    cluster = addresses(parse_tasks("ps=2,worker=2,evaluator=1"))
    listed = [address for one in cluster.values() for address in one]
    assert len(set(listed)) == 5  # the evaluator has none: nobody speaks with it
    found = read_cluster(tf_config(Task(Role.PS, 1), cluster))
    assert (found.name, found.addresses[Role.PS]) == ("ps 1", tuple(cluster[Role.PS]))
    assert read_cluster(tf_config(Task(Role.EVALUATOR, 0), cluster)).role == Role.EVALUATOR
    assert json.loads(tf_config(Task(Role.CHIEF, 0), cluster))["task"] == {"type": "chief", "index": 0}
