"""Which failure of a task ends a training."""

import pytest

from edgeloop.cloud.train.cluster.cluster import Role
from edgeloop.cloud.train.cluster.fork_server import TaskState
from edgeloop.cloud.train.cluster.launching import Task
from edgeloop.cloud.train.cluster.losses import SupervisionOptions, find_loss
from edgeloop.errors import DataError, IntegrityError


def lost(role, failure):
    """What is found where a task of that role ended with the exit status 1."""
    task = Task(role, 0)
    states = {task: TaskState(pid=1, code=1, step=7, beats=1, events=())}
    return find_loss(states, {task: failure}, 0.0, SupervisionOptions(), None)


def test_wrong_data_of_a_worker_ends_the_training():
    with pytest.raises(DataError):
        lost(Role.WORKER, DataError("wrong", advice="-"))


def test_whatever_an_evaluator_raises_is_the_loss_of_the_evaluator_alone():
    found = lost(Role.EVALUATOR, IntegrityError("no sound checkpoint is left", advice="-"))
    assert found.task == Task(Role.EVALUATOR, 0) and "no sound checkpoint is left" in found.what
