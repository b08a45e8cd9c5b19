"""A static site: the page uncompressed, the bundle, and the headers for hosts."""

import gzip
import html
import json
import os
from pathlib import Path

import pytest

from edgeloop import cli
from edgeloop.browser import export as exporting
from edgeloop.browser.export import export
from edgeloop.browser.host_files import host_files
from edgeloop.errors import DeviceError, IntegrityError, OptionsError

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
    listed = json.loads((folder / "files.json").read_text())
    listed["files"]["assets/old-1.js"] = {"bytes": 21, "sha256": "4" * 64, "forms": []}
    (folder / "files.json").write_text(json.dumps(listed))
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


def test_files_that_were_added_to_an_export_are_named_and_kept(bundle, tmp_path):
    site = tmp_path / "site"
    export(bundle, site)
    (site / ".git").mkdir()
    (site / ".git" / "HEAD").write_text("ref")
    (site / "CNAME").write_text("example.org")
    (site / "bundle" / "tfjs" / "notes.txt").write_text("mine")
    with pytest.raises(OptionsError, match=r"would delete: \.git, CNAME, bundle/tfjs/notes\.txt\."):
        export(bundle, site)
    assert (site / ".git" / "HEAD").read_text() == "ref"


def test_one_rule_for_hosts_says_how_long_a_file_is_kept():
    lines = host_files()["_headers"].splitlines()
    rules, path = {}, ""
    for line in lines:
        if line.startswith("/"):
            path = line
        else:
            rules.setdefault(path, []).append(line.split(":")[0].strip())
    assert "!" not in host_files()["_headers"]
    keeping = [path for path, names in rules.items() if "Cache-Control" in names]
    assert keeping == ["/assets/*", "/", "/index.html", "/sw.js", "/bundle/*"]


def test_the_browsers_command_line_has_no_token(bundle, monkeypatch, capfd):
    opened = []

    def open_page(url):
        file = Path(url.removeprefix("file://"))
        opened.append((url, file, file.stat().st_mode & 0o777, html.unescape(file.read_text())))
        raise DeviceError("no browser", advice="Ends the server.")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", open_page)
    assert cli.run(["browse", str(bundle), "--host", "0.0.0.0"]) == DeviceError.exit_code
    [(url, file, mode, page)] = opened
    printed = capfd.readouterr().err.partition("http://")[2].split()[0]
    assert "token=" in printed and f"url=http://{printed}" in page
    assert "token" not in url and mode == 0o600 and not file.exists()
