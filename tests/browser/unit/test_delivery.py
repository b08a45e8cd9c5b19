"""What travels: compressed forms, hashes that browsers keep for good, revalidation, ranges; and who may ask."""

import gzip
import http.client
import json
import socket
import ssl
import subprocess
import urllib.request
import xml.etree.ElementTree as ET

import pytest

from edgeloop.browser.listening import Listening
from edgeloop.browser.page_handler import byte_range
from edgeloop.browser.server import serve
from edgeloop.browser.share import PLAIN_HTTP, terminal_code
from edgeloop.errors import OptionsError

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
    listening = Listening(host=own_address)
    assert listening.accepts([f"{own_address}:80"])
    assert not listening.accepts(["192.0.2.7:80"]) and not listening.accepts(["evil.example"])
    assert Listening(host="pc.lan").accepts(["PC.lan:80"]) and not Listening(host="pc.lan").accepts(
        ["pc.lan.evil.example"]
    )
    assert Listening(host="::").accepts(["[fe80::1]:80"])
    assert not listening.accepts([own_address, own_address]), "two Host headers"


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


def test_a_secure_context_is_tls_or_loopback():
    assert Listening().secure_context and Listening(host="localhost").secure_context
    assert not Listening(host="0.0.0.0").secure_context
