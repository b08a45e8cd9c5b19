"""What travels: compressed forms, hashes that browsers keep for good, revalidation, ranges; and who may ask."""

import contextlib
import gzip
import http.client
import json
import socket
import ssl
import subprocess
import threading
import urllib.request
import xml.etree.ElementTree as ET

import pytest

from edgeloop.browser.listening import Listening
from edgeloop.browser.page_handler import PageHttpServer, byte_range
from edgeloop.browser.server import serve
from edgeloop.browser.share import PLAIN_HTTP, terminal_code
from edgeloop.errors import DeviceError, OptionsError
from edgeloop.http.base_server import CONNECTIONS
from edgeloop.http.request_reader import RequestReader

WASM = b"\0asm" + bytes(range(200))  # conftest.py's page
HASHED = "/assets/run-1a2b.wasm"
KEPT = "max-age=31536000, immutable"


@pytest.fixture
def served(bundle):
    with serve(bundle, mounts={}) as served:
        yield served


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "br"),  # what Chromium sends to loopback and over TLS
        ("gzip, deflate", "gzip"),  # and what it sends over plain http in a network
        ("br;q=0, GZIP;q=0.5", "gzip"),
        ("identity", None),
        ("", None),
    ],
)
def test_a_file_comes_in_the_best_form_that_the_client_takes(served, ask, accepted, coding):
    status, headers, body = ask(served, HASHED, Accept_Encoding=accepted)
    assert (status, headers.get("Content-Encoding"), headers["Vary"]) == (200, coding, "Accept-Encoding")
    plain = {"br": lambda data: WASM if data == b"packed by Brotli" else b"", "gzip": gzip.decompress}
    assert plain.get(coding, bytes)(body) == WASM
    assert headers["Content-Type"] == "application/wasm", "instantiateStreaming takes no other"
    assert int(headers["Content-Length"]) == len(body)


@pytest.mark.parametrize(
    ("path", "caching"),
    [(HASHED, KEPT), ("/", "no-cache"), ("/icon.svg", "no-cache"), ("/bundle/float32.tflite", "no-cache")],
)
def test_names_with_a_hash_are_kept_for_good_and_others_revalidated(served, ask, path, caching):
    assert ask(served, path)[1]["Cache-Control"] == caching


@pytest.mark.parametrize("path", ["/", "/icon.svg", HASHED, "/bundle/float32.tflite", "/bundle/manifest.json"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_browser_has_is_not_sent_again(served, ask, path, method):
    whole = ask(served, path, Accept_Encoding="gzip")[1]
    tag = whole["ETag"]
    for known in (tag, f'"other", W/{tag}'):
        status, headers, body = ask(served, path, method=method, Accept_Encoding="gzip", If_None_Match=known)
        assert (status, headers["ETag"], body) == (304, tag, b"")
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["Cache-Control"] == whole["Cache-Control"], "the browser takes over the headers of a 304"
        assert "Content-Type" not in headers
    assert ask(served, path, Accept_Encoding="gzip", If_None_Match='"other"')[0] == 200


def test_each_form_has_a_tag_of_its_own(served, ask):
    tags = {ask(served, HASHED, Accept_Encoding=accepted)[1]["ETag"] for accepted in ("br", "gzip", "identity")}
    assert len(tags) == 3


def test_a_bundle_file_that_changed_is_sent_again(served, ask, bundle):
    tag = ask(served, "/bundle/float32.tflite")[1]["ETag"]
    (bundle / "float32.tflite").write_bytes(b"other model")
    status, headers, body = ask(served, "/bundle/float32.tflite", If_None_Match=tag)
    assert (status, body, headers["ETag"] != tag) == (200, b"other model", True)


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-3", range(4)),
        ("bytes=2-", range(2, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-30", range(10)),
        ("bytes=8-30", range(8, 10)),
        ("bytes=10-", range(0)),
        ("bytes=-0", range(0)),
        ("bytes=3-2", None),
        ("bytes=0-1,3-4", None),  # several: all is an answer too
        ("bytes=-", None),
        ("lines=0-3", None),
        ("", None),
    ],
)
def test_a_range_is_read_as_http_says(asked, part):
    assert byte_range(asked, 10) == part


@pytest.mark.parametrize(("path", "whole"), [("/bundle/float32.tflite", b"model"), (HASHED, WASM)])
def test_a_range_gives_that_part_of_the_uncompressed_file(served, ask, path, whole):
    size = len(whole)
    status, headers, body = ask(served, path, Range="bytes=1-3", Accept_Encoding="br, gzip")
    assert (status, headers["Content-Range"], body) == (206, f"bytes 1-3/{size}", whole[1:4])
    assert "Content-Encoding" not in headers
    status, headers, body = ask(served, path, method="HEAD", Range="bytes=-2")
    assert (status, headers["Content-Length"], body) == (206, "2", b"")
    status, headers, _ = ask(served, path, Range=f"bytes={size}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")
    assert ask(served, path, Range="bytes=1-3", If_Range='"of an older file"')[0] == 200


def test_a_hashed_file_that_lost_its_compressed_forms_is_404(served, ask, page):
    (page / "assets" / "run-1a2b.wasm.gz").unlink()
    assert ask(served, HASHED)[0] == 404


@pytest.fixture
def own_address():
    """An address of this machine that is not loopback; no packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return probe.getsockname()[0]


def token_of(served):
    return served.url.partition("?token=")[2]


def test_with_host_other_machines_need_the_token_and_the_right_name(bundle, ask, own_address, caplog):
    with caplog.at_level("INFO"), serve(bundle, host="0.0.0.0", mounts={}) as served:
        assert served.url.startswith(f"http://{own_address}:{served.port}/?token=")
        first = f"/?token={token_of(served)}"
        for host, status in [
            (f"{own_address}:{served.port}", 200),
            ("127.0.0.1:1", 200),
            ("evil.example", 403),
            (f"{own_address}.evil.example", 403),
            ("", 403),
            ("[", 403),
        ]:
            assert ask(served, first, host=host)[0] == status, host
            assert ask(served, "/", host=host)[0] == 403, host
        with urllib.request.urlopen(served.url, timeout=60) as answer:
            assert b'content="share"' in answer.read()
    assert token_of(served) not in caplog.text


def test_a_named_address_answers_to_that_name_alone(bundle, ask, own_address):
    listening, named = Listening(host=own_address), Listening(host="pc.lan")
    assert listening.accepts([f"{own_address}:80"], own_address)
    assert not listening.accepts(["192.0.2.7:80"], own_address)
    assert not listening.accepts(["evil.example"], own_address)
    assert named.accepts(["PC.lan:80"], own_address) and not named.accepts(["pc.lan.evil.example"], own_address)
    assert Listening(host="::").accepts(["[fe80::1]:80"], "::")
    assert Listening(host="fe80:0::1").accepts(["[fe80::1]:80"], "fe80::1")
    assert not listening.accepts([own_address, own_address], own_address), "two Host headers"


def test_the_panel_gets_address_picture_and_the_limits_of_plain_http(bundle, ask, own_address):
    pytest.importorskip("segno")
    with serve(bundle, host="0.0.0.0", mounts={}) as served:
        token = f"?token={token_of(served)}"
        shared = json.loads(ask(served, f"/api/share/{token}")[2])
        assert shared == {"address": served.url, "note": PLAIN_HTTP}
        status, headers, picture = ask(served, f"/api/share/qr.svg{token}")
        assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
        assert ET.fromstring(picture).tag.endswith("svg")
        assert ask(served, "/api/share/qr.svg")[0] == 403


def test_on_loopback_nothing_is_shared(served, ask):
    assert ask(served, "/api/share/")[0] == 404


ADDRESS = "http://192.168.1.5:8000/?token=abcdefghijklmnopqrstuv"


def test_the_terminals_code_is_a_square_of_blocks():
    pytest.importorskip("segno")
    lines = terminal_code(ADDRESS, in_colour=False).splitlines()
    assert {len(line) for line in lines} == {41}  # version 4: 33 modules and a margin of 4 on each side
    assert len(lines) == 21  # two modules a line
    assert {*"".join(lines)} <= {*" ▀▄█"}


def test_the_code_is_white_on_black_on_every_ground():
    pytest.importorskip("segno")
    plain, coloured = (terminal_code(ADDRESS, in_colour).splitlines() for in_colour in (False, True))
    # 231 is white and 16 black of the 256 colours: ECMA-48 8.3.117, ISO 8613-6; the end of each line sets them back
    assert coloured == [f"\x1b[38;5;231;48;5;16m{line}\x1b[0m" for line in plain]
    assert plain[0] == "█" * 41, "the margin is drawn"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return folder


def test_with_a_certificate_the_page_comes_over_tls(bundle, certificate):
    files = {"certificate": certificate / "certificate.pem", "key": certificate / "key.pem"}
    (bundle / "float32.tflite").write_bytes(b"model")
    with serve(bundle, **files, mounts={}) as served:
        assert served.url == f"https://127.0.0.1:{served.port}/"
        trusting = ssl.create_default_context(cafile=certificate / "certificate.pem")
        with urllib.request.urlopen(f"{served.url}bundle/float32.tflite", context=trusting, timeout=60) as answer:
            assert answer.read() == b"model"
        with socket.create_connection(("127.0.0.1", served.port), timeout=60):  # says nothing, and holds up nobody
            assert urllib.request.urlopen(served.url, context=trusting, timeout=60).status == 200
        plain = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        plain.request("GET", "/")
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.getresponse()
        assert urllib.request.urlopen(served.url, context=trusting, timeout=60).status == 200


def test_what_cannot_be_used_for_tls_is_named(bundle, certificate, tmp_path):
    with pytest.raises(OptionsError, match="no certificate"):
        Listening(key=certificate / "key.pem")
    for files, found in [
        ({"certificate": tmp_path / "none.pem"}, "No such file"),
        ({"certificate": certificate / "key.pem"}, "cannot be used for TLS"),
    ]:
        with pytest.raises(OptionsError, match=found):
            serve(bundle, **files).__enter__()


def test_a_secure_context_is_tls_or_loopback(bundle, certificate):
    for options, shared, secure in [
        ({"host": "localhost"}, False, True),
        ({"host": "0.0.0.0"}, True, False),
        ({"host": "0.0.0.0", **tls_files(certificate)}, True, True),
    ]:
        with serve(bundle, **options, mounts={}) as served:
            assert (served.shared, served.secure_context) == (shared, secure), options


def tls_files(certificate):
    return {"certificate": certificate / "certificate.pem", "key": certificate / "key.pem"}


def test_a_body_that_tls_has_decrypted_already_is_read_at_once(certificate):
    ours, theirs = socket.socketpair()
    context = Listening(**tls_files(certificate)).tls_context()
    trusting = ssl.create_default_context(cafile=certificate / "certificate.pem")
    body = bytes(range(256)) * 1024 + bytes(5000)  # the last record is larger than what is asked for at a time

    def send():
        with trusting.wrap_socket(theirs, server_hostname="localhost") as client:
            for start in range(0, len(body), 9000):
                client.sendall(body[start : start + 9000])
            sent.wait(30)

    sent = threading.Event()
    client = threading.Thread(target=send)
    client.start()
    try:
        with context.wrap_socket(ours, server_side=True) as connection:
            reader = RequestReader(connection, 3.0, lambda: False)
            got = b"".join(reader.read(size) for size in (256 << 10, 5000))
            sent.set()
    finally:
        sent.set()
        client.join(30)
    assert got == body


def test_clients_that_never_begin_tls_shut_nobody_out(bundle, certificate):
    trusting = ssl.create_default_context(cafile=certificate / "certificate.pem")
    with serve(bundle, **tls_files(certificate), mounts={}) as served, contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=60))
        assert urllib.request.urlopen(served.url, context=trusting, timeout=60).status == 200


@pytest.mark.parametrize(
    "host", ["", "0", "0.0.0.0", "localhost", "LOCALHOST", "127.1", "127.0.1.1", "::1", "[0:0:0:0:0:0:0:1]", "name"]
)
def test_the_address_that_is_printed_is_one_that_is_answered(bundle, host):
    host = socket.gethostname() if host == "name" else host  # Debian gives it 127.0.1.1
    try:
        with serve(bundle, host=host, mounts={}) as served:
            assert urllib.request.urlopen(served.url, timeout=60).status == 200
    except DeviceError as e:
        pytest.skip(str(e))  # no IPv6


@pytest.mark.parametrize(
    ("host", "bound", "address"),
    [
        ("pc.lan", "192.0.2.7", "pc.lan"),
        ("pc.lan", "127.0.1.1", "127.0.1.1"),  # the server answers to names of loopback alone there
        ("192.0.519", "192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::7", "2001:db8::7", "[2001:db8::7]"),
        ("localhost", "127.0.0.1", "localhost"),
    ],
)
def test_an_address_is_written_as_browsers_send_it_back(host, bound, address):
    listening = Listening(host=host)
    assert listening.address(bound, 80) == f"http://{address}:80"
    assert listening.accepts([f"{address}:80"], bound)


def test_the_address_in_the_log_has_the_scheme(certificate):
    for options, scheme in [({}, "http"), (tls_files(certificate), "https")]:
        with PageHttpServer(Listening(**options)) as server:
            assert server.url == f"{scheme}://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("request_head", ["GET http://[ HTTP/1.1", "GET / HTTP/1.1\r\nOrigin: http://["])
def test_an_address_that_is_none_is_a_bad_request(bundle, capfd, request_head):
    with (
        serve(bundle, host="0.0.0.0", mounts={}) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=60) as client,
    ):
        client.sendall(f"{request_head}\r\nHost: localhost\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert capfd.readouterr().err == ""
