"""How a device asks a registry for releases: when, where, and what it makes of servers that mean no good."""

import contextlib
import errno
import http.server
import os
import socket
import threading
import time
import traceback
from pathlib import Path

import pytest
from pulling import file_server, head

from edgeloop.edge.on_device.pull import folder_source, http_opener, http_source
from edgeloop.edge.on_device.pull.folder_source import FolderSource
from edgeloop.edge.on_device.pull.http_source import HttpSource, conditions_of, retry_after_s
from edgeloop.edge.on_device.pull.poll_schedule import delay_s, first_delay_s
from edgeloop.edge.on_device.pull.pull_record import KEPT, TRIES, FailedRelease, PullRecord, read_record, write_record
from edgeloop.edge.on_device.pull.release_source import SourceAddress
from edgeloop.edge.on_device.releases.store import Release, Slot, SlotState, write_state
from edgeloop.edge.on_device.serving import serve as program
from edgeloop.errors import DataError, DeviceError, IntegrityError, OptionsError

FIRST, LAST = (lambda: 0.0), (lambda: 1.0)  # the ends of what random() gives


def test_polls_are_spread_over_a_whole_period_around_the_asked_one():
    assert (delay_s(300, 0, None, FIRST), delay_s(300, 0, None, LAST)) == (150, 450)
    assert (first_delay_s(300, True, FIRST), first_delay_s(300, True, LAST)) == (0, 300)
    assert first_delay_s(300, False, LAST) == 0  # a new device is of no use before it has a release


def test_failures_back_off_with_full_jitter_up_to_a_bound():
    longest = [delay_s(300, failures, None, LAST) for failures in range(1, 9)]
    assert longest == [20, 40, 80, 160, 320, 640, 900, 900]  # 10 s, doubled each time
    assert {delay_s(300, failures, None, FIRST) for failures in range(1, 9)} == {1}  # and never at once
    assert delay_s(3600, 40, None, LAST) == 3600  # a slower poll than the bound is no faster for failing
    assert delay_s(0.5, 1, None, LAST) == 1.0 and delay_s(0.5, 1, None, FIRST) == 0.5
    assert delay_s(300, 10_000, None, LAST) == 900


def test_a_server_that_asks_to_be_left_alone_is_and_not_asked_by_all_in_the_same_second():
    assert delay_s(10, 1, 120.0, FIRST) == 120
    assert delay_s(10, 1, 120.0, LAST) == 130
    assert delay_s(300, 0, 5.0, LAST) == 450  # it is left alone for longer anyway
    assert delay_s(10, 1, 1e12, FIRST) == 86_400


def test_retry_after_is_seconds_or_a_date():
    assert retry_after_s("120", 0) == 120
    assert retry_after_s("Thu, 01 Jan 1970 00:02:00 GMT", 30) == 90  # RFC 9110's two forms
    assert retry_after_s("Thu, 01 Jan 1970 00:02:00 GMT", 300) == 0
    assert [retry_after_s(value, 0) for value in (None, "", "soon", "-5", "1e9", "٣")] == [None] * 6


@pytest.mark.parametrize(
    ("text", "base", "name", "alias"),
    [
        ("https://host/models/tiny", "https://host/models/tiny", "tiny", "latest"),
        ("https://host:8443/tiny/#canary", "https://host:8443/tiny", "tiny", "canary"),
        ("http://[::1]:8000/a/b-1.0", "http://[::1]:8000/a/b-1.0", "b-1.0", "latest"),
        ("HTTPS://host/models/ti%6Ey", "HTTPS://host/models/ti%6Ey", "tiny", "latest"),
        ("/mnt/models/tiny#stable", "/mnt/models/tiny", "tiny", "stable"),
        ("models/tiny/", "models/tiny", "tiny", "latest"),
        ("https://host/@team/tiny", "https://host/@team/tiny", "tiny", "latest"),
        ("https://host:8443/%40team/tiny", "https://host:8443/%40team/tiny", "tiny", "latest"),
        ("/mnt/a:b@c/tiny", "/mnt/a:b@c/tiny", "tiny", "latest"),
    ],
)
def test_an_address_names_a_model_and_an_alias(text, base, name, alias):
    address = SourceAddress(text)
    assert (address.base, address.name, address.alias) == (base, name, alias)


@pytest.mark.parametrize(
    "text",
    ["https://host", "https:///tiny", "https://host/..", "https://host/%2e%2e", "https://host/tiny?token=1", "/", "..",
     "", "https://host/tiny#a/b", "https://host/.hidden", "https://user:secret@host/tiny", "https://host/a%2Fb",
     "http://[::1/models/m", "HTTPS://user@host/tiny"],
)  # fmt: skip
def test_an_address_that_names_no_model_is_refused(text):
    with pytest.raises(OptionsError):
        SourceAddress(text)


@pytest.mark.parametrize(
    "text",
    ["https://user:hunter@host/m", "https://user:hunter@[::1/m", "https://user:hunter@host/m?a=1", "ftp://u:hunter@h/m",
     "https://user:hunter@host/..", "https://user:a#hunter@host/m", "https://user:a/hunter@host/m", "u:hunter@host/m",
     "https:user:hunter@host/m", "https://user:hunter@host\uff0fx/m", "https://host/m?token=hunter", "https:///?hunter",
     "https://host/..#a?hunter", "https://host/?hunter", "HTTPS://user:hunter@host/m#latest", "ftp://h/m?hunter",
     "https://tok/hunter@host/m/tiny", "https://hunter/@host.example/tiny", "https://a/hunter/@host:80/tiny",
     "https://@hunter/tiny", "https://hunter#x@host/tiny"],
)  # fmt: skip
def test_no_error_nor_its_traceback_repeats_a_password_of_an_address(text):
    with pytest.raises(OptionsError) as refused:
        SourceAddress(text)
    log = "".join(traceback.format_exception(refused.value))
    assert "hunter" not in f"{refused.value} {refused.value.to_json()} {log}"


OLD, NEW = "Mon, 30 Nov 2026 02:00:00 GMT", "Mon, 30 Nov 2026 02:00:01 GMT"


def test_a_file_that_has_just_changed_is_asked_for_without_conditions():
    """A second change in one second would have the same date; and nginx's ETag is no more than that and a size."""
    settled = {"Date": "Mon, 30 Nov 2026 02:00:02 GMT", "Last-Modified": OLD, "ETag": '"x"'}
    assert conditions_of(settled) == (("If-None-Match", '"x"'), ("If-Modified-Since", OLD))
    assert conditions_of({**settled, "Date": NEW}) == ()
    assert conditions_of({"Last-Modified": OLD}) == ()  # the server's clock is not known
    assert conditions_of({"ETag": '"x"'}) == (("If-None-Match", '"x"'),)
    assert conditions_of({}) == ()


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "served"
    (folder / "0001").mkdir(parents=True)
    (folder / "index.json").write_bytes(b"{}")
    (folder / "0001" / "model").write_bytes(bytes(range(256)) * 1000)
    with file_server(folder) as server:
        yield server


MODEL, SIZE = "0001/model", 256_000


def whole(source, size=SIZE, piece=100_000):
    """The file, read piece by piece."""
    with source.open(MODEL, size) as file:
        data = b""
        while len(data) < size:
            data += file.read(len(data), piece)
        return data


def test_a_poll_that_finds_nothing_new_is_one_small_request(files):
    source = HttpSource(files.url)
    data, seen = source.index(None)
    assert data == b"{}"
    assert source.index(seen) is None
    assert [status for _, status, _ in files.asked] == [200, 304]
    (files.folder / "index.json").write_bytes(b'{"a": 1}')
    assert source.index(seen)[0] == b'{"a": 1}'


def test_a_server_of_pythons_own_is_enough(files):
    handler = http.server.SimpleHTTPRequestHandler
    quiet = type("Quiet", (handler,), {"log_message": lambda *words: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: quiet(*a, directory=files.folder)) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        os.utime(files.folder / "index.json", (1e9, 1e9))
        source = HttpSource(f"http://127.0.0.1:{server.server_address[1]}")
        data, seen = source.index(None)
        assert (data, source.index(seen)) == (b"{}", None)
        with source.open(MODEL, SIZE) as file:  # it knows no ranges: what is here is read again, and dropped
            assert file.read(200_000, 10) == (bytes(range(256)) * 1000)[200_000:200_010]
        server.shutdown()


def test_a_file_goes_on_where_it_ended(files):
    source = HttpSource(files.url)
    assert whole(source) == bytes(range(256)) * 1000
    assert len(files.asked) == 1  # one response for all of its pieces
    with source.open(MODEL, SIZE) as file:
        assert file.read(100_001, 3) == b"\xa1\xa2\xa3"
    assert files.asked[-1] == ("/0001/model", 206, "bytes=100001-")


def test_a_connection_that_breaks_costs_no_more_than_its_rest(files):
    def breaks(handler):
        head(handler, 200, Content_Length=str(SIZE))
        handler.wfile.write(bytes(range(256)) * 500)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    files.answers["/0001/model"] = breaks
    with HttpSource(files.url).open(MODEL, SIZE) as file:
        first = file.read(0, SIZE)
        assert len(first) == 128_000
        with pytest.raises(DeviceError, match="ended after 128000 of 256000 bytes"):
            file.read(len(first), SIZE)
    del files.answers["/0001/model"]
    with HttpSource(files.url).open(MODEL, SIZE) as file:
        assert first + file.read(len(first), SIZE) == bytes(range(256)) * 1000


def endless(handler):
    """As good as: 64 MiB, of which a reader that hangs up in time takes what lies in the buffers of both sockets."""
    head(handler, 200)
    with contextlib.suppress(OSError):
        for _ in range(1024):
            handler.wfile.write(b"x" * 65536)
            handler.server.sent_bytes = getattr(handler.server, "sent_bytes", 0) + 65536


def test_a_body_without_an_end_is_cut_off_where_the_manifest_says(files):
    files.answers.update(dict.fromkeys(("/0001/model", "/index.json", "/0001/manifest.json"), endless))
    source = HttpSource(files.url)
    assert whole(source) == b"x" * SIZE  # and its hash is none that a manifest lists
    with pytest.raises(IntegrityError, match=r"index\.json has more than 1048576 bytes"):
        source.index(None)
    with pytest.raises(IntegrityError, match=r"manifest\.json has more than 1000 bytes"):
        source.small_file("0001/manifest.json", 1000)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (lambda h: head(h, 200, Content_Length="1000000"), IntegrityError, "length 1000000, and its manifest says"),
        (lambda h: head(h, 206, Content_Range="bytes 0-9/10"), IntegrityError, "length bytes 0-9/10, and"),
        (lambda h: head(h, 206), IntegrityError, "length None, and its manifest"),
        (lambda h: head(h, 200, Content_Encoding="gzip"), DeviceError, "comes compressed"),
        (lambda h: head(h, 200, Transfer_Encoding="chunked"), DeviceError, r"comes in chunks\. Let the server"),
        (lambda h: head(h, 503, Retry_After="77"), DeviceError, "is answered with 503"),
        (lambda h: head(h, 404), DeviceError, r"is answered with 404 Not Found\. Check the URL"),
        (lambda h: head(h, 304), DeviceError, "is answered with 304"),
        (lambda h: h.wfile.write(b"HTTP/1.1 abc\r\n\r\n"), DeviceError, "does not answer: HTTP/1.1 abc"),
        (lambda h: h.wfile.write(b"x" * 100_000), DeviceError, "does not answer"),
        (lambda h: None, DeviceError, "does not answer: Remote end closed"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_file_of_that_length_is_refused_in_one_line(files, answer, kind, message):
    files.answers["/0001/model"] = answer
    source = HttpSource(files.url)
    with pytest.raises(kind, match=message) as refused:
        whole(source)
    assert "\n" not in str(refused.value)
    assert source.retry_after_s == (77 if "503" in message else None)


@pytest.mark.parametrize(
    "where",
    ["http://169.254.169.254/latest?token=secret", "http://localhost:1/x", "file:///etc/passwd", "//x.example/y"],
)
def test_a_redirect_to_another_server_is_refused(files, where):
    files.answers["/index.json"] = lambda handler: head(handler, 302, Location=where)
    with pytest.raises(DeviceError, match=r"redirects to|is answered with 302") as refused:
        HttpSource(files.url).index(None)
    assert "secret" not in str(refused.value)


def test_a_redirect_within_the_server_is_followed_and_not_for_ever_nor_its_body_read(files):
    servers = []

    def moved(handler):
        servers.append(handler.server)
        head(handler, 302, Location="/moved.json")
        endless(handler)

    files.answers["/index.json"] = moved
    (files.folder / "moved.json").write_bytes(b"[1]")
    assert HttpSource(files.url).index(None)[0] == b"[1]"
    assert getattr(servers[0], "sent_bytes", 0) < 32 << 20
    files.answers["/moved.json"] = lambda handler: head(handler, 302, Location="/index.json")
    with pytest.raises(DeviceError, match="is answered with 302"):
        HttpSource(files.url).index(None)


def test_only_https_may_be_elsewhere():
    ask = http_opener.SafeRedirects().redirect_request
    request = http_source.urllib.request.Request("http://a.example/x")
    assert ask(request, None, 302, "", {}, "https://b.example/x").full_url == "https://b.example/x"
    assert ask(request, None, 302, "", {}, "http://a.example:80/y").full_url == "http://a.example:80/y"
    secure = http_source.urllib.request.Request("https://a.example/x")
    for other in ("http://a.example/x", "http://a.example:443/x"):
        with pytest.raises(DeviceError, match="neither the same server nor https"):
            ask(secure, None, 302, "", {}, other)


def test_a_header_that_comes_byte_by_byte_ends(files, monkeypatch):
    monkeypatch.setattr(http_opener, "HEAD_S", 0.3)

    def drips(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    files.answers["/index.json"] = drips
    with pytest.raises(DeviceError, match=r"does not answer: no whole header came in 0\.3 s"):
        HttpSource(files.url).index(None)


def test_a_body_that_comes_byte_by_byte_ends(files, monkeypatch):
    monkeypatch.setattr(http_source, "SMALL_S", 0.2)

    def drips(handler):
        head(handler, 200)
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.02)

    files.answers["/index.json"] = drips
    with pytest.raises(DeviceError, match=r"sent \d+ bytes in 0.2 s"):
        HttpSource(files.url).index(None)


def test_the_proxy_of_the_environment_is_asked(files, monkeypatch):
    monkeypatch.setenv("http_proxy", files.url)

    def answers(handler):
        head(handler, 200)
        handler.wfile.write(b"[2]")

    files.answers["http://registry.example/tiny/index.json"] = answers
    assert HttpSource("http://registry.example/tiny").index(None)[0] == b"[2]"


def test_a_certificate_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for file in ("ca.pem", "missing.pem"):
        with pytest.raises(DataError, match=f"{file} cannot be read as certificates"):
            HttpSource("https://host/tiny", str(tmp_path / file))


def test_a_folder_is_read_as_a_server_is(tmp_path, files):
    source = FolderSource(str(files.folder))
    data, seen = source.index(None)
    assert (data, source.index(seen)) == (b"{}", None)
    assert whole(source) == bytes(range(256)) * 1000
    with pytest.raises(IntegrityError, match="has 256000 bytes, and its manifest says 10"):
        whole(source, 10)
    with pytest.raises(IntegrityError, match="has more than 100 bytes"):
        source.small_file(MODEL, 100)
    with pytest.raises(DeviceError, match="cannot be read"):
        FolderSource(str(tmp_path / "unmounted")).index(None)
    os.mkfifo(tmp_path / "index.json")
    with pytest.raises(DeviceError, match="is not a regular file"):
        FolderSource(str(tmp_path)).index(None)


def test_a_folder_that_fails_while_it_is_read_is_the_sources_fault(tmp_path, files, monkeypatch):
    class Failing:
        def seek(self, offset):
            raise OSError(errno.ESTALE, "Stale file handle")

    source = FolderSource(str(files.folder))
    with pytest.raises(DeviceError, match=r"0001/model ended after 256000 of 300000 bytes\. Check that the folder"):
        folder_source._OpenFile((files.folder / MODEL).open("rb"), MODEL, 300_000).read(SIZE, 10)
    with source.open(MODEL, SIZE) as file, pytest.raises(DeviceError, match=r"0001/model cannot be read \(Stale"):
        file.file = Failing()
        file.read(0, 10)


def test_a_repair_under_the_same_folder_name_ends_the_wait_for_a_release(tmp_path, monkeypatch):
    """It is looked at again where the state was written again, and only then: that reads all of it."""
    slot, looked, slept = Slot(str(tmp_path), "tiny"), [], []
    state = SlotState(floor=1, current=Release("1", 1, "0" * 64, "int8", "litert", 1, None))
    Path(slot.path).mkdir(parents=True)
    write_state(slot, state)

    def sleep(seconds):
        slept.append(seconds)
        assert len(slept) < 9, "it waits for ever"
        if len(slept) == 5:
            write_state(slot, state)

    def look(slot, release):
        looked.append(len(slept))
        return len(slept) >= 5

    monkeypatch.setattr(program, "is_whole", look)
    monkeypatch.setattr(program.time, "sleep", sleep)
    monkeypatch.setattr(program, "say", lambda text: None)
    program._wait_for_release(slot, "/mnt/models/tiny")
    assert looked == [0, 5]


def test_a_record_is_read_as_it_was_written_and_a_damaged_one_is_none(tmp_path):
    slot = Slot(str(tmp_path), "tiny")
    assert read_record(slot) is None
    Path(slot.path).mkdir(parents=True)
    record = PullRecord(source="/a", polled_s=1.5, failed={"1" * 64: FailedRelease(3, 2)})
    write_record(slot, record)
    assert read_record(slot) == record
    for damaged in ("", "{", "[]", '{"failed": {}, "colour": 1}', '{"failed": {"a": 3}}'):
        (tmp_path / "slots" / "tiny" / "pull.json").write_text(damaged)
        assert read_record(slot) is None


def test_the_releases_that_failed_longest_ago_are_forgotten():
    record = PullRecord()
    for version in range(KEPT + 3):
        record = record.with_failed(f"{version:064}", FailedRelease(version, reason="wrong"))
    record = record.with_failed(f"{5:064}", FailedRelease(5, reason="again"))
    assert [each.version for each in record.failed.values()] == [3, 4, *range(6, KEPT + 3), 5]
    assert record.with_failed(f"{5:064}", None).failed.keys() < record.failed.keys()
    assert [FailedRelease(1, times).final for times in range(1, TRIES + 1)] == [False, False, True]
