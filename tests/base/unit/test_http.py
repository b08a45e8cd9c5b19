"""The server that the page's and a device's are made of: whom it answers, what it bounds, and how it ends."""

import http.client
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

from edgeloop.errors import DeviceError
from edgeloop.http import base_handler, base_server, request_reader
from edgeloop.http.base_handler import BaseHandler
from edgeloop.http.base_server import BaseServer
from edgeloop.http.loopback import is_loopback_address, is_loopback_host, is_loopback_origin

WAIT_S = 20


class Echo(BaseHandler):
    """GET says hello once `gate` is open; POST gives the body back, 8 bytes at most."""

    gate = threading.Event()
    asked = 0  # GETs that have arrived whole, under `serving`

    def do_GET(self):
        with self.server._changed:
            Echo.asked += 1
        self.gate.wait(WAIT_S)
        self.respond(200, "text/plain", b"hello", X_Kind="test")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.read_body(8)
        if body is not None:
            self.respond(200, "application/octet-stream", body)


@contextmanager
def serving(host="127.0.0.1", handler=Echo):
    handler.gate.set()
    Echo.asked = 0
    server = BaseServer(host, 0, handler, "--port")
    server.start()
    try:
        yield server
    finally:
        handler.gate.set()
        server.close(WAIT_S)


def connected(server):
    return socket.create_connection(server.server_address[:2], timeout=WAIT_S)


def exchange(server, request):
    """What comes back, to the end of the connection."""
    with connected(server) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def head(*lines, method="GET"):
    return "\r\n".join([f"{method} / HTTP/1.1", *lines, "Connection: close", "", ""]).encode()


def status(response):
    return int(response.split()[1])


@pytest.mark.parametrize(
    ("name", "loopback"),
    [
        ("localhost", True),
        ("LocalHost:8501", True),
        ("127.0.0.1", True),
        ("127.8.9.10:80", True),
        ("[::1]", True),
        ("[::1]:8501", True),
        ("::1", False),  # a Host header has brackets
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example:127.0.0.1", False),
        ("10.0.0.9", False),
        ("localhost\n", False),
        ("", False),
    ],
)
def test_only_names_of_this_machine_are_loopback(name, loopback):
    assert is_loopback_host(name) is loopback
    assert is_loopback_origin(f"http://{name}") is is_loopback_origin(f"https://{name}") is loopback


def test_an_origin_that_is_no_page_of_this_machine_is_foreign():
    assert [is_loopback_origin(value) for value in ("null", "localhost", "file://", "ftp://localhost")] == [False] * 4


def test_addresses_of_loopback_are_known_by_their_numbers():
    addresses = ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.0.0.9")
    assert [is_loopback_address(one) for one in addresses] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["Host: localhost"], 200),
        (["Host: localhost", "Origin: http://[::1]:3000"], 200),
        ([], 403),
        (["Host: rebound.example"], 403),
        (["Host: localhost", "Host: rebound.example"], 403),
        (["Host: localhost", "Origin: https://elsewhere.example"], 403),
        (["Host: localhost", "Origin: null"], 403),
    ],
)
def test_on_loopback_a_foreign_name_or_page_gets_no_response(lines, code):
    with serving() as server:
        response = exchange(server, head(*lines))
    assert status(response) == code
    assert (b"Start with --host ADDRESS to serve other machines." in response) is (code == 403)


def test_a_handler_may_do_without_a_host_but_not_with_a_foreign_one():
    class Lenient(Echo):
        requires_host = False

    with serving(handler=Lenient) as server:
        assert [status(exchange(server, head(*lines))) for lines in ([], ["Host: rebound.example"])] == [200, 403]


def test_beyond_loopback_any_name_is_answered():
    with serving("0.0.0.0") as server:
        assert not server.loopback
        assert status(exchange(server, head("Host: camera-1.example", "Origin: http://other.example"))) == 200


def test_ipv6_loopback_is_served_with_and_without_brackets():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    for host in ("::1", "[::1]"):
        with serving(host) as server:
            assert server.url == f"http://[::1]:{server.server_port}" and server.loopback
            assert status(exchange(server, head(f"Host: [::1]:{server.server_port}"))) == 200


def test_every_response_keeps_a_browser_from_guessing_storing_and_framing():
    with serving() as server:
        for request in (head("Host: localhost"), head("Host: foreign.example"), head("Host: localhost", method="PUT")):
            response = exchange(server, request)
            for line in (b"X-Content-Type-Options: nosniff", b"Cache-Control: no-store", b"frame-ancestors 'none'"):
                assert line in response
            assert b"Python" not in response  # nor which program it is


def test_a_response_to_head_has_the_length_and_no_body():
    with serving() as server:
        response = exchange(server, head("Host: localhost", method="HEAD"))
    assert b"Content-Length: 5\r\n" in response and b"X-Kind: test\r\n" in response and response.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["Content-Length: 8", "", "12345678"], 200),
        (["Content-Length: 9", "", "123456789"], 413),
        (["Content-Length: " + "9" * 5000], 413),
        (["Content-Length: -1"], 411),
        (["Content-Length: 2", "Content-Length: 3"], 411),
        (["Transfer-Encoding: chunked"], 411),
        (["Content-Length: 2", "Transfer-Encoding: chunked", "", "{}"], 411),
        ([], 411),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_has_one_length_within_the_limit(lines, code):
    request = "\r\n".join(["POST / HTTP/1.1", "Host: localhost", "Connection: close", *lines])
    with serving() as server:
        assert status(exchange(server, (request + ("" if "" in lines else "\r\n\r\n")).encode())) == code


def test_a_body_that_nobody_reads_is_not_taken_for_the_next_request():
    inner = head("Host: localhost")
    with serving() as server:
        response = exchange(
            server, b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner
        )
    assert response.count(b"HTTP/1.1 200") == 1


def test_two_requests_share_a_connection():
    with serving() as server, closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=WAIT_S)) as c:
        for body in (b"one", b"two"):
            c.request("POST", "/", body)
            assert c.getresponse().read() == body


def test_a_head_over_the_limit_is_431():
    lines = [f"X-{n}: {'x' * 8000}" for n in range(9)]  # 72,000 bytes, each line within the standard library's limit
    with serving() as server:
        assert status(exchange(server, head("Host: localhost", *lines))) == 431


@pytest.mark.parametrize("request_line", ["GET\r\n\r\n", "GET / HTTP/9.9.9\r\n\r\n", "GET / x y z\r\n\r\n"])
def test_a_damaged_request_line_is_refused_in_our_own_form(request_line):
    with serving() as server:
        response = exchange(server, request_line.encode())
    assert status(response) in (400, 505) and b"X-Content-Type-Options" in response


def test_a_request_that_trickles_in_is_cut_off(monkeypatch):
    monkeypatch.setattr(base_handler, "REQUEST_S", 0.5)
    with serving() as server, connected(server) as client:
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < WAIT_S:
                client.sendall(b"x")  # each byte comes well within the limit, the whole request never
                client.settimeout(0.1)
                try:
                    assert client.recv(1) == b""
                    break
                except TimeoutError:
                    continue
        except ConnectionError:
            pass  # closed while we sent: as good
        assert time.monotonic() - begun < WAIT_S


def test_connections_that_are_answered_are_counted_and_one_too_many_is_503(monkeypatch):
    monkeypatch.setattr(base_server, "CONNECTIONS", 2)
    monkeypatch.setattr(base_server, "FULL_S", 0.2)
    with serving() as server:
        Echo.gate.clear()
        with connected(server) as one, connected(server) as two:
            for client in (one, two):
                client.sendall(head("Host: localhost"))
            while Echo.asked < 2:
                time.sleep(0.01)
            response = exchange(server, head("Host: localhost"))
            assert status(response) == 503 and response.endswith(b"2 connections are open. Try again later.\n")
            Echo.gate.set()
            assert [status(client.recv(1 << 16)) for client in (one, two)] == [200, 200]
        while server._open:
            time.sleep(0.01)
        assert status(exchange(server, head("Host: localhost"))) == 200


def slow_client(server, sent, count, clients):
    """A connection whose request is not whole; the server has counted `count` of them when it returns."""
    client = clients.enter_context(connected(server))
    client.sendall(sent)
    while len(server._idle) < count:
        time.sleep(0.01)
    return client


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTT", b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n1"]
)
def test_slow_clients_do_not_keep_others_out_the_slowest_is_ended(monkeypatch, sent):
    monkeypatch.setattr(base_server, "CONNECTIONS", 2)
    with serving() as server, ExitStack() as clients:
        slowest, slow = (slow_client(server, sent, count, clients) for count in (1, 2))
        assert status(exchange(server, head("Host: localhost"))) == 200
        with suppress(ConnectionError):
            assert slowest.recv(1) == b""
        slow.settimeout(0.1)
        with pytest.raises(TimeoutError):  # the other one may go on
            slow.recv(1)


class Keep(Echo):
    def do_POST(self):
        body = self.read_body(1 << 20)
        if body is not None:
            self.gate.wait(WAIT_S)
            self.respond(200, "text/plain", b"kept")


def test_long_bodies_share_a_memory_and_short_ones_always_find_room(monkeypatch):
    monkeypatch.setattr(base_server, "BODIES_BYTES", 1000)
    monkeypatch.setattr(base_handler, "PIECE_BYTES", 600)  # a body's first piece is not counted
    with serving(handler=Keep) as server:
        Keep.gate.clear()
        post = head("Host: localhost", "Content-Length: 1500", method="POST") + b"x" * 1500
        short = head("Host: localhost", "Content-Length: 600", method="POST") + b"x" * 600
        with connected(server) as first, connected(server) as third:
            first.sendall(post)
            while server._body_bytes < 900:
                time.sleep(0.01)
            third.sendall(short)
            refused = exchange(server, post)
            assert status(refused) == 503 and b"all the memory there is for them" in refused
            Keep.gate.set()
            assert [status(client.recv(1 << 16)) for client in (first, third)] == [200, 200]
        while server._body_bytes:
            time.sleep(0.01)
        assert status(exchange(server, post)) == 200


def test_a_connection_that_ends_makes_room_for_the_next(monkeypatch):
    monkeypatch.setattr(base_server, "CONNECTIONS", 1)
    monkeypatch.setattr(base_server, "FULL_S", WAIT_S)
    with serving() as server, connected(server) as one, connected(server) as next_one:
        while not server._open:
            time.sleep(0.01)
        next_one.sendall(head("Host: localhost"))
        one.close()
        assert status(next_one.recv(1 << 16)) == 200


def test_closing_answers_what_has_begun_and_ends_what_is_idle():
    with serving() as server:
        Echo.gate.clear()
        with connected(server) as idle, connected(server) as asked:
            asked.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while server._open < 2:
                time.sleep(0.01)
            closer = threading.Thread(target=server.close, args=(WAIT_S,))
            closer.start()
            assert idle.recv(1) == b""
            closer.join(0.3)
            assert closer.is_alive()  # a request is being answered
            Echo.gate.set()
            response = b"".join(iter(lambda: asked.recv(1 << 16), b""))
            closer.join(WAIT_S)
        assert status(response) == 200 and b"Connection: close" in response and response.endswith(b"hello")
        assert not closer.is_alive()


def test_closing_waits_no_longer_than_it_is_told():
    with serving() as server:
        Echo.gate.clear()
        with connected(server) as asked:
            asked.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while not server._open:
                time.sleep(0.01)
            server.close(0.2)
            assert server._open == 1  # and not until the gate opens


def test_the_reader_ends_an_idle_connection_when_the_server_closes():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert request_reader.RequestReader(ours, WAIT_S, lambda: True).readline() == b""


def test_a_port_in_use_is_named_with_the_option_that_chooses_another():
    with serving() as server, pytest.raises(DeviceError) as caught:
        BaseServer("127.0.0.1", server.server_port, Echo, "--http")
    assert str(caught.value) == (
        f"port {server.server_port} on 127.0.0.1 is in use. Choose another with --http, or 0 for any that is free."
    )
    assert caught.value.exit_code == 8


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 65536), ("no.such.name.invalid", 0)])
def test_an_address_that_this_machine_has_not_is_one_line(host, port):
    with pytest.raises(DeviceError, match=rf"cannot listen on port {port} on {host} \("):
        BaseServer(host, port, Echo, "--port")
