"""A page of a few files in place of the built one, a bundle, and requests as they go over the line."""

import contextlib
import gzip
import http.client
import json

import numpy as np
import pytest

from edgeloop.browser import server
from edgeloop.bundle import MANIFEST, Manifest, file_entries

WASM = b"\0asm" + bytes(range(200))


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page of three files stands in for the built one: one of them compressed, as web/delivery.ts does it."""
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text('<!doctype html><meta name="edgeloop-routes" content="" />page')
    (folder / "icon.svg").write_bytes(b"<svg/>")
    (folder / "assets" / "run-1a2b.wasm.gz").write_bytes(gzip.compress(WASM))
    (folder / "assets" / "run-1a2b.wasm.br").write_bytes(b"packed by Brotli")
    files = {
        "index.html": {"bytes": 0, "sha256": "1" * 64, "forms": []},
        "icon.svg": {"bytes": 6, "sha256": "2" * 64, "forms": []},
        "assets/run-1a2b.wasm": {"bytes": len(WASM), "sha256": "3" * 64, "forms": ["gz", "br"]},
    }
    (folder / "files.json").write_text(json.dumps({"files": files}))
    monkeypatch.setattr(server, "PAGE", folder / "index.html")
    return folder


@pytest.fixture
def bundle(tmp_path, page):
    folder = tmp_path / "bundle"
    (folder / "tfjs").mkdir(parents=True)
    (folder / "float32.tflite").write_bytes(b"model")
    (folder / "tfjs" / "model.json").write_text("{}")
    np.savez(folder / "reference.npz", x=np.zeros(2))
    manifest = Manifest("m", 1, {}, file_entries(folder), {}, ())
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    (folder / "manifest.json.sig").write_text("signature")
    (tmp_path / "secret").write_text("secret")
    return folder


@pytest.fixture
def ask():
    """Status, headers, body; the path goes out as it is, with its dots."""

    def ask(served, path, method="GET", host=None, body=None, **headers):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=180)) as connection:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if host != "":
                connection.putheader("Host", host or f"127.0.0.1:{served.port}")
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = {
                name: ", ".join(answer.headers.get_all(name)) for name in answer.headers
            }  # as browsers read them
            return answer.status, headers, answer.read()

    return ask
