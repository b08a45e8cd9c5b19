"""The server gives out what its table holds, to this machine's own names, and nothing else."""

import socket

import pytest

from edgeloop.browser.server import serve, serve_files
from edgeloop.bundle import MANIFEST
from edgeloop.errors import DeviceError, IntegrityError, MissingExtra, ModelError


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/", "text/html; charset=utf-8", b'<!doctype html><meta name="edgeloop-routes" content="native" />page'),
        ("/assets/run-1a2b.wasm", "application/wasm", b"\0asm" + bytes(range(200))),
        ("/bundle/float32.tflite", "application/octet-stream", b"model"),
        ("/bundle/tfjs/model.json", "application/json", b"{}"),
        ("/bundle/tfjs%2Fmodel.json?again", "application/json", b"{}"),
    ],
)
def test_page_and_listed_files_come_with_their_types_and_isolated(bundle, path, kind, body, ask):
    with serve(bundle) as served:
        status, headers, got = ask(served, path)
    assert (status, got, headers["Content-Type"]) == (200, body, kind)
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_manifest_is_served_as_it_is(bundle, ask):
    with serve(bundle) as served:
        assert ask(served, "/bundle/manifest.json")[2] == (bundle / MANIFEST).read_bytes()


@pytest.mark.parametrize(
    ("path", "status", "length"), [("/bundle/float32.tflite", 200, "5"), ("/bundle/none", 404, "18")]
)
def test_head_says_the_length_and_sends_no_body(bundle, path, status, length):
    with serve(bundle) as served, socket.create_connection(("127.0.0.1", served.port), timeout=180) as line:
        line.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        with line.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert f"Content-Length: {length}".encode() in head
    assert body == b""


@pytest.mark.parametrize(
    "path",
    [
        "/bundle/../secret",
        "/bundle/%2e%2e/secret",
        "/bundle/..%2fsecret",
        "/bundle/tfjs/../../secret",
        "/../secret",
        "//secret",
        "/bundle//etc/passwd",
        "/bundle/",
        "/bundle/tfjs",
        "/bundle/proof.json",  # may be served, but this bundle has none
        "/bundle/manifest.json.sig",
        "/bundle/float32.tflite%00",
    ],
)
def test_paths_that_are_not_listed_are_not_there(bundle, path, ask):
    with serve(bundle) as served:
        status, _, body = ask(served, path)
    assert status == 404
    assert b"secret" not in body


def test_a_file_that_became_a_link_is_not_followed(bundle, tmp_path, ask):
    with serve(bundle) as served:
        (bundle / "float32.tflite").unlink()
        (bundle / "float32.tflite").symlink_to(tmp_path / "secret")
        assert ask(served, "/bundle/float32.tflite")[0] == 404


def test_a_folder_that_became_a_link_is_not_followed(bundle, tmp_path, ask):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.json").write_text("secret")
    with serve(bundle) as served:
        (bundle / "tfjs").rename(tmp_path / "tfjs-before")
        (bundle / "tfjs").symlink_to(outside)
        assert ask(served, "/bundle/tfjs/model.json")[0] == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),  # loopback too, and no name that could lead elsewhere
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("", 403),
    ],
)
def test_only_loopback_names_are_answered(bundle, host, status, ask):
    with serve(bundle) as served:
        assert ask(served, "/bundle/float32.tflite", host=host)[0] == status


@pytest.mark.parametrize(("method", "status"), [("POST", 405), ("PUT", 405), ("DELETE", 405), ("OPTIONS", 501)])
def test_other_methods_are_refused(bundle, method, status, ask):
    with serve(bundle) as served:
        assert ask(served, "/", method=method)[0] == status


def test_it_listens_on_loopback_alone(bundle):
    with serve(bundle) as served:
        assert served.url == f"http://127.0.0.1:{served.port}/"
        with socket.socket() as other, pytest.raises(OSError):
            other.settimeout(5)
            other.connect(("127.0.0.2", served.port))  # would answer if it listened on 0.0.0.0


def test_the_port_is_free_again_when_the_block_ends(bundle):
    with serve(bundle) as served:
        port = served.port
    with serve(bundle, port) as again:
        assert again.port == port


def test_a_port_in_use_is_named(bundle):
    with serve(bundle) as served, pytest.raises(DeviceError, match=rf"port {served.port} on 127.0.0.1 is in use"):
        serve(bundle, served.port).__enter__()


def test_a_damaged_bundle_is_not_served(bundle):
    (bundle / "float32.tflite").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"float32\.tflite"):
        serve(bundle).__enter__()


def test_no_bundle_is_no_bundle(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        serve(tmp_path / "none").__enter__()


def test_a_page_that_was_not_built_is_named(bundle, page):
    (page / "index.html").unlink()
    with pytest.raises(MissingExtra, match="make"):
        serve(bundle).__enter__()


def test_single_files_are_served_without_their_folder(bundle, ask):
    with serve_files({"m.tflite": bundle / "float32.tflite"}) as served:
        assert ask(served, "/bundle/m.tflite")[2] == b"model"
        assert ask(served, "/bundle/float32.tflite")[0] == 404
        assert ask(served, "/bundle/manifest.json")[0] == 404
