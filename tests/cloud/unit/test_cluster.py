"""TF_CONFIG: what it says, and each contradiction named."""

import json

import pytest

from edgeloop.cloud.train.cluster.cluster import Role, read_cluster
from edgeloop.errors import OptionsError

TWO = ["a:1", "b:2"]


def config(cluster, kind="worker", index=0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def test_without_tf_config_and_without_a_cluster_there_is_none():
    assert read_cluster("") is None
    assert read_cluster('{"cluster": {}, "task": {"type": "worker", "index": 0}}') is None


def test_worker_0_saves_where_there_is_no_chief_and_else_the_chief():
    assert [read_cluster(config({"worker": TWO}, index=k)).saves for k in (0, 1)] == [True, False]
    chief = {"chief": ["c:3"], "worker": TWO}
    assert read_cluster(config(chief, "chief")).saves and not read_cluster(config(chief)).saves


def test_a_chief_trains_unless_it_coordinates_parameter_servers():
    cluster = {"chief": ["c:3"], "worker": TWO}
    assert read_cluster(config(cluster)).workers == 3
    with_ps = read_cluster(config({**cluster, "ps": ["p:4", "q:5"]}, "ps", 1))
    assert (with_ps.workers, with_ps.parameter_servers, with_ps.role, with_ps.name) == (2, 2, Role.PS, "ps 1")


def test_an_index_may_be_a_text_and_a_chief_may_be_called_master():
    assert read_cluster(config({"worker": TWO}, index="1")).index == 1
    assert read_cluster(config({"master": ["c:3"], "worker": TWO}, "master")).role == Role.CHIEF


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        (config({"wroker": TWO}), "type 'wroker'. Did you mean worker"),
        (config({"worker": []}), "lists no addresses for worker"),
        (config({"worker": ["a"]}), "address 'a' for worker. It must be host:port"),
        (config({"worker": ["a:0"]}), "address 'a:0'"),
        (config({"worker": ["a:70000"]}), "address 'a:70000'"),
        (config({"worker": ["a:1", "a:1"]}), "gives the address a:1 to two tasks"),
        (config({"worker": TWO}, index=2), "worker 2, but its cluster has 2 of that type. Use an index from 0 to 1"),
        (config({"worker": TWO}, index=True), "worker True"),
        (config({"worker": TWO}, "chief"), "this task is a chief, but its cluster has none"),
        (config({"worker": TWO, "chief": ["c:1", "d:1"]}), "more than one chief"),
        (config({"worker": TWO, "ps": ["p:1"]}), r"parameter servers \(ps\) but no chief"),
        (config({"chief": ["c:1"], "ps": ["p:1"]}, "chief"), r"parameter servers \(ps\) but no worker"),
        (config({"evaluator": ["e:1"]}, "evaluator"), "neither a chief nor workers"),
        ('{"cluster": {"worker": ["a:1"]}}', "does not say which task"),
    ],
)
def test_a_contradiction_is_named(text, said):
    with pytest.raises(OptionsError, match=said):
        read_cluster(text)
