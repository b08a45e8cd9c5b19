"""What `--launch` names, and the TF_CONFIG of each task."""

import json

import pytest

from edgeloop.cloud.train.cluster import Role, read_cluster
from edgeloop.cloud.train.launching import Task, addresses, parse_tasks, tf_config
from edgeloop.errors import OptionsError


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


def test_every_task_gets_the_same_cluster_and_its_own_place_in_it():
    cluster = addresses(parse_tasks("ps=2,worker=2,evaluator=1"))
    listed = [address for one in cluster.values() for address in one]
    assert len(set(listed)) == 5  # the evaluator has none: nobody speaks with it
    found = read_cluster(tf_config(Task(Role.PS, 1), cluster))
    assert (found.name, found.addresses[Role.PS]) == ("ps 1", tuple(cluster[Role.PS]))
    assert read_cluster(tf_config(Task(Role.EVALUATOR, 0), cluster)).role == Role.EVALUATOR
    assert json.loads(tf_config(Task(Role.CHIEF, 0), cluster))["task"] == {"type": "chief", "index": 0}
