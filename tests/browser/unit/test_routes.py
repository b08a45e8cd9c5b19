"""Routes of other folders are mounted on the page's server, and every check of the server comes before them."""

import contextlib
import json

import pytest

from edgeloop.browser.server import serve
from edgeloop.errors import DataError, DeviceError
from edgeloop.http.routes import Response, json_response, not_found


class Echo:
    """Answers what it was asked; its paths `bad`, `down` and `bug` raise."""

    requires_token = False
    limits_bytes = {"GET": 0, "POST": 8}  # noqa: RUF012

    def answer(self, request):
        if request.path == "bad":
            raise DataError("the update is empty", advice="Send weights.")
        if request.path == "down":
            raise DeviceError("the SuperLink does not answer", advice="Start it.")
        if request.path == "none":
            return not_found(request)
        if request.path == "raw":
            return Response(b"\1\2", "application/octet-stream", 201, {"X-Round": "3"})
        assert request.path != "bug"
        return json_response([request.method, request.path, dict(request.query), request.body.decode()])


class Guarded(Echo):
    requires_token = True


def mounting(route, log=None):
    @contextlib.contextmanager
    def mount(site):
        if log is not None:
            log.append((site.bundle, site.options))
        yield route
        if log is not None:
            log.append("left")

    return mount


@pytest.fixture
def served(bundle):
    with serve(bundle, mounts={"echo": mounting(Echo()), "absent": mounting(None)}) as served:
        yield served


def test_a_route_answers_below_its_name(served, ask):
    status, headers, body = ask(served, "/api/echo/a%20b/c?x=1&x=2", method="POST", body=b"hello")
    assert (status, json.loads(body)) == (200, ["POST", "a b/c", {"x": "2"}, "hello"])
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("application/json", "no-store")
    assert json.loads(ask(served, "/api/echo")[2]) == ["GET", "", {}, ""]


def test_a_route_sends_bytes_a_status_and_headers_of_its_own(served, ask):
    status, headers, body = ask(served, "/api/echo/raw")
    assert (status, headers["X-Round"], headers["Content-Type"], body) == (
        201,
        "3",
        "application/octet-stream",
        b"\1\2",
    )


def test_head_of_a_route_has_the_length_and_no_body(served, ask):
    status, headers, body = ask(served, "/api/echo/raw", method="HEAD")
    assert (status, headers["Content-Length"], body) == (201, "2", b"")


@pytest.mark.parametrize(
    ("path", "status", "found"),
    [
        ("bad", 400, "the update is empty."),
        ("down", 503, "the SuperLink does not answer."),
        ("none", 404, "GET 'none' is none of this route's requests"),
        ("bug", 500, "The route echo failed. The log of the server says why."),
    ],
)
def test_an_error_of_a_route_becomes_json_with_its_status(served, ask, path, status, found):
    got, _, body = ask(served, f"/api/echo/{path}")
    assert (got, json.loads(body)["error"]["found"]) == (status, found)


@pytest.mark.parametrize("path", ["/api/absent/x", "/api/other", "/api/", "/api"])
def test_what_is_not_mounted_is_not_there(served, ask, path):
    assert ask(served, path)[0] == 404


def test_a_method_that_the_route_does_not_name_is_405(served, ask):
    status, _, body = ask(served, "/api/echo/x", method="DELETE")
    assert (status, body) == (405, b"DELETE is none of the methods of this route: GET, POST.\n")


def test_a_body_over_the_routes_limit_is_413(served, ask):
    assert ask(served, "/api/echo/x", method="POST", body=b"123456789")[0] == 413
    assert ask(served, "/api/echo/x", method="POST", body=b"12345678")[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Origin": "http://127.0.0.1:1"}, 403),  # another server on this machine
        ({"Origin": "http://localhost:{port}"}, 403),  # Host says 127.0.0.1: the browser takes these for two sites
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),  # typed into the address bar
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),  # e.g. an image of a foreign page, which has no Origin
        ({}, 200),  # a program
    ],
)
def test_a_route_answers_the_servers_own_page_alone(served, ask, headers, status):
    sent = {name: value.format(port=served.port) for name, value in headers.items()}
    assert ask(served, "/api/echo/x", **sent)[0] == status


def test_the_page_is_told_which_routes_there_are(served, ask):
    assert b'<meta name="edgeloop-routes" content="echo" />' in ask(served, "/")[2]


def test_a_route_is_told_bundle_and_options_and_left_at_the_end(bundle):
    log = []
    with serve(bundle, options={"federate": "host:1"}, mounts={"echo": mounting(Echo(), log)}):
        assert log == [(bundle.resolve(), {"federate": "host:1"})]
    assert log[1:] == ["left"]


def test_with_a_route_that_requires_it_everything_needs_the_token(bundle, ask):
    with serve(bundle, mounts={"echo": mounting(Guarded())}) as served:
        address, _, query = served.url.partition("?")
        assert query.startswith("token=") and len(query) > 25
        for path in ("/", "/bundle/manifest.json", "/api/echo/x", f"/?{query}x", "/?token=", "/?token=%C3%A9"):
            assert ask(served, path)[0] == 403, path
        status, headers, _ = ask(served, f"/?{query}")
        cookie, *attributes = headers["Set-Cookie"].split("; ")
        assert (status, sorted(attributes)) == (200, ["HttpOnly", "Path=/", "SameSite=Strict"])
        assert address == f"http://127.0.0.1:{served.port}/"
        for path in ("/", "/bundle/manifest.json", "/api/echo/x"):
            status, headers, _ = ask(served, path, Cookie=f"other=1; {cookie}")
            assert (status, "Set-Cookie" in headers) == (200, False), path
        assert ask(served, "/", Cookie=cookie + "x")[0] == 403
        assert ask(served, "/", Cookie="\x7f;;==")[0] == 403


def test_each_server_has_a_token_of_its_own(bundle):
    tokens = set()
    for _ in range(2):
        with serve(bundle, mounts={"echo": mounting(Guarded())}) as served:
            tokens.add(served.url.partition("?")[2])
    assert len(tokens) == 2
