"""Which runtimes there are, where, and who may pick which; no runtime is loaded."""

from importlib.metadata import EntryPoint

import pytest

from edgeloop.bundle import Format
from edgeloop.errors import DeviceError, MissingExtra
from edgeloop.runtime import runners
from edgeloop.runtime.agent.survey import PACKAGES
from edgeloop.runtime.client import survey
from edgeloop.runtime.device import Device, parse_device

FAR = Device("ssh://far", "python3")


@pytest.fixture
def installation(monkeypatch):
    """An installation with LiteRT, and TensorFlow to compare it with."""
    points = [
        EntryPoint(name, f"edgeloop.runtime.runners:{name.upper()}", runners.GROUP) for name in ("tensorflow", "litert")
    ]
    monkeypatch.setattr(runners, "entry_points", lambda group: points if group == runners.GROUP else [])


def test_what_is_for_comparison_alone_is_there_for_who_names_it_and_nobody_else(installation):
    assert runners.runners() == {"litert": runners.LITERT}
    assert runners.runners(("litert",)) == {"litert": runners.LITERT}
    assert runners.runners(("tensorflow",)) == {"litert": runners.LITERT, "tensorflow": runners.TENSORFLOW}


def test_every_runner_of_an_agent_is_one_that_a_survey_can_find():
    own = (runners.LITERT, runners.TFLITE_RUNTIME, runners.ONNXRUNTIME, runners.TENSORFLOW)
    assert {runner.name: runner.module for runner in own} == {name: module for name, (module, _) in PACKAGES.items()}


def test_a_device_is_asked_once_for_all_runtimes(monkeypatch):
    asked = []
    monkeypatch.setattr(runners, "survey", lambda device: asked.append(device) or {"litert": "2.3.0"})
    runners._survey.cache_clear()
    assert runners.LITERT.lacks(FAR) == ""
    assert runners.TFLITE_RUNTIME.lacks(FAR) == "tflite-runtime is not installed on ssh://far"
    assert not runners.ONNXRUNTIME.on(FAR)
    assert asked == [FAR]


def test_a_device_that_cannot_be_reached_is_asked_once_too(monkeypatch):
    asked = []

    def fail(device):
        asked.append(device)
        raise DeviceError("cannot reach far: no route to host.")

    monkeypatch.setattr(runners, "survey", fail)
    runners._survey.cache_clear()
    for runner in (runners.LITERT, runners.ONNXRUNTIME):
        assert runner.lacks(FAR) == "cannot reach far: no route to host"
    assert len(asked) == 1


def test_a_runtime_that_is_nowhere_comes_with_the_line_that_installs_it(monkeypatch, tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    monkeypatch.setenv("EDGELOOP_DEVICE_PYTHON", str(python))
    monkeypatch.setattr(runners, "survey", lambda device: {})
    runners._survey.cache_clear()
    nowhere = runners.AgentRunner(
        "nowhere", frozenset({Format.TFLITE}), "no_such_module", install="pip install nowhere"
    )
    with pytest.raises(MissingExtra, match=r"nowhere is not installed here .* Run: pip install nowhere"):
        nowhere.device()


def test_a_survey_answers_with_versions_and_loads_nothing():
    """Of this interpreter, in a process of its own: metadata tells, so what is installed is what has a version."""
    found = survey(parse_device("local"), 30)
    assert set(found) <= set(PACKAGES) and all(found.values())
