"""A static site: the page uncompressed, the bundle, and the headers for hosts."""

import gzip
import json
import os

import pytest

from edgeloop import cli
from edgeloop.browser import export as exporting
from edgeloop.browser.export import export
from edgeloop.browser.host_files import host_files
from edgeloop.errors import IntegrityError, OptionsError

WASM = b"\0asm" + bytes(range(200))  # conftest.py's page


@pytest.fixture(autouse=True)
def built(page, monkeypatch):
    (page / "assets" / "run-1a2b.wasm.br").unlink()  # not what an export reads
    monkeypatch.setattr(exporting, "PAGE", page / "index.html")


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_site_has_page_bundle_and_headers_uncompressed(bundle, tmp_path):
    site = export(bundle, tmp_path / "new" / "site")
    assert names(site.folder) == [
        ".htaccess",
        "README.txt",
        "_headers",
        "assets/run-1a2b.wasm",
        "bundle/float32.tflite",
        "bundle/manifest.json",
        "bundle/reference.npz",
        "bundle/tfjs/model.json",
        "files.json",
        "icon.svg",
        "index.html",
        "nginx.conf",
    ]
    assert (site.folder / "assets/run-1a2b.wasm").read_bytes() == WASM
    assert (site.folder / "index.html").read_text().count('content=""') == 1, "no routes"
    assert b'<meta name="edgeloop-exported"' in (site.folder / "index.html").read_bytes()
    assert site.bundle_bytes == sum(
        path.stat().st_size for path in (site.folder / "bundle").rglob("*") if path.is_file()
    )


def test_an_export_is_replaced_and_a_foreign_folder_refused(bundle, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    export(bundle, folder)  # empty: nothing is lost
    (folder / "assets" / "old-1.js").write_text("of the release before")
    export(bundle, folder)
    assert "assets/old-1.js" not in names(folder)
    (folder / "README.txt").write_text("my own notes")
    with pytest.raises(OptionsError, match="is not empty and holds no site that edgeloop wrote"):
        export(bundle, folder)
    assert (folder / "README.txt").read_text() == "my own notes"


def test_a_failure_leaves_the_old_site_and_nothing_beside_it(bundle, tmp_path, page):
    folder = tmp_path / "sites" / "site"
    export(bundle, folder)
    before = names(folder)
    (page / "assets" / "run-1a2b.wasm.gz").write_bytes(gzip.compress(WASM)[:-20])
    with pytest.raises(EOFError):
        export(bundle, folder)
    assert names(folder) == before and os.listdir(folder.parent) == ["site"]


def test_a_damaged_bundle_is_not_exported(bundle, tmp_path):
    (bundle / "float32.tflite").write_bytes(b"other")
    with pytest.raises(IntegrityError):
        export(bundle, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_every_host_sends_isolation_and_keeps_hashed_files():
    texts = host_files()
    for name in ("_headers", ".htaccess", "nginx.conf"):
        for header in ("Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy", "Content-Security-Policy"):
            assert header in texts[name], name
        assert "max-age=31536000, immutable" in texts[name] and "no-cache" in texts[name]
        assert "no-store" not in texts[name]


def test_browse_export_says_what_was_written(bundle, tmp_path, capfd):
    site = tmp_path / "site"
    assert cli.run(["browse", str(bundle), "--export", str(site), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["site"] == str(site) and document["bundle_bytes"] > 0


@pytest.mark.parametrize(
    "given",
    [
        ("--port", "8000"),
        ("--host", "0.0.0.0"),
        ("--certificate", "a.pem"),
        ("--certificate-key", "a.pem"),
        ("--no-open",),
        ("--federate", "localhost:9092"),
        ("--tabs", "2"),
    ],
)
def test_an_option_of_a_server_contradicts_export(bundle, tmp_path, capfd, given):
    assert cli.run(["browse", str(bundle), "--export", str(tmp_path / "site"), *given]) == 2
    assert f"{given[0]} is given with --export, which serves nothing" in capfd.readouterr().err
    assert not (tmp_path / "site").exists()
