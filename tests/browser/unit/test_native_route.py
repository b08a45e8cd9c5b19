"""The route that measures natively: whom it answers, how many models it keeps, and that it ends them."""

import json
import threading
from email.message import Message
from types import SimpleNamespace

import pytest

from edgeloop.browser import native_model, native_route
from edgeloop.browser.native_model import NativeModel, NativeStart
from edgeloop.browser.native_route import MOST_LOADED, NativeRoute, mount
from edgeloop.errors import DeviceError, OptionsError, TargetError
from edgeloop.http.routes import Request, Site

VARIANTS = [f"v{k}" for k in range(MOST_LOADED + 2)]


def post(variant, runs="1", closing=lambda: False):
    return Request("POST", variant, {"runs": runs}, Message(), closing=closing)


@pytest.fixture
def lab(monkeypatch, tmp_path):
    """A bundle of many variants, and models that are made up; what happened to them is in `log`."""
    made = SimpleNamespace(log=[], fails=False, folder=tmp_path, killed=threading.Event(), hangs=False)
    made.runs = threading.Event()

    def load(bundle, name, threads):
        made.log.append(f"load {name}")

        def run(runs):
            made.runs.set()
            if made.fails or (made.hangs and made.killed.wait(60)):
                raise DeviceError("the agent died", advice="Try again.")
            return [0.5] * runs

        start = NativeStart("litert", "2.3.0", "local", 1, 10.0, 2.0, 1.5)
        return NativeModel(start, run, made.killed.set, lambda: made.log.append(f"end {name}"))

    bundle = SimpleNamespace(variants=[SimpleNamespace(id=name) for name in VARIANTS])
    monkeypatch.setattr(native_route, "read_bundle", lambda folder: bundle)
    monkeypatch.setattr(native_model, "load_native", load)
    return made


def test_a_variant_is_loaded_at_its_first_request_and_ended_with_the_server(lab):
    with mount(Site(lab.folder)) as route:
        first = json.loads(route.answer(post("v0", "3")).body)
        assert first == {
            "runtime": "litert",
            "version": "2.3.0",
            "device": "local",
            "threads": 1,
            "import_ms": 10.0,
            "load_ms": 2.0,
            "first_ms": 1.5,
            "wall_ms": [0.5, 0.5, 0.5],
        }
        route.answer(post("v0"))
        assert lab.log == ["load v0"]
    assert lab.log == ["load v0", "end v0"]


def test_what_is_no_variant_of_the_bundle_is_not_found_and_nothing_is_loaded(lab):
    route = NativeRoute(lab.folder)
    assert route.answer(post("../v0")).status == 404
    assert lab.log == []


@pytest.mark.parametrize("runs", ["0", "-1", "101", "1e9", "", "99999999999999", "²"])
def test_a_number_of_runs_that_is_none_is_refused(lab, runs):
    with pytest.raises(OptionsError, match="It must be 1 to 100"):
        NativeRoute(lab.folder).answer(post("v0", runs))


def test_the_model_that_was_not_asked_for_longest_makes_room(lab):
    with mount(Site(lab.folder)) as route:
        for name in [*VARIANTS[:MOST_LOADED], "v0", VARIANTS[MOST_LOADED]]:
            route.answer(post(name))
        assert [line for line in lab.log if line.startswith("end")] == ["end v1"]


def test_a_model_that_failed_is_loaded_anew(lab):
    with mount(Site(lab.folder)) as route:
        lab.fails = True
        with pytest.raises(DeviceError):
            route.answer(post("v0"))
        lab.fails = False
        route.answer(post("v0"))
        assert lab.log == ["load v0", "end v0", "load v0"]


def test_models_that_nobody_asks_for_end(lab, monkeypatch):
    monkeypatch.setattr(native_route, "IDLE_S", 0.05)
    ended = threading.Event()
    route = NativeRoute(lab.folder)
    monkeypatch.setattr(route, "_end", lambda name: ended.set())
    route.answer(post("v0"))
    assert ended.wait(30)


def test_the_end_of_the_server_ends_a_measurement_that_runs(lab):
    lab.hangs = True
    route, failed = NativeRoute(lab.folder), []

    def measure():
        with pytest.raises(DeviceError) as error:
            route.answer(post("v0"))
        failed.append(error)

    request = threading.Thread(target=measure)
    request.start()
    assert lab.runs.wait(30)
    route.close()
    request.join(30)
    assert failed and lab.log == ["load v0", "end v0"]


def test_the_end_of_the_server_does_not_wait_for_a_process_that_does_not_end(lab, monkeypatch):
    monkeypatch.setattr(native_route, "CLOSE_S", 0.05)
    route = NativeRoute(lab.folder)
    with route._turn:  # a request that goes on
        route.close()


def test_an_idle_timer_that_fires_during_a_request_ends_nothing_after_it(lab):
    route = NativeRoute(lab.folder)
    route.answer(post("v0"))
    fired = route._timed
    route.answer(post("v0"))
    route._end_idle(fired)
    assert lab.log == ["load v0"]
    route.close()


def test_a_model_that_was_loaded_while_the_server_ended_ends_too(lab):
    route = NativeRoute(lab.folder)
    route.close()
    with pytest.raises(DeviceError, match="the server has ended"):
        route.answer(post("v0"))
    assert lab.log == ["load v0", "end v0"]


def test_a_request_behind_another_gives_up_when_the_server_ends(lab):
    route = NativeRoute(lab.folder)
    with route._turn, pytest.raises(DeviceError, match="measuring another variant"):
        route.answer(post("v0", closing=lambda: True))


def test_a_format_of_browsers_alone_has_no_native_time():
    from edgeloop.bundle import Format

    bundle = SimpleNamespace(variant=lambda name: SimpleNamespace(format=Format.TFJS))
    with pytest.raises(TargetError, match="only a browser runs tfjs files"):
        native_model.load_native(bundle, "tfjs")
