"""Where a server is, which keys and certificates a device takes, and what a server's refusal means."""

import ssl
import sys
import time
from email.utils import formatdate

import pytest

from edgeloop import cli
from edgeloop.errors import DataError, DeviceError, IntegrityError, OptionsError
from edgeloop.federated.device import join as joining
from edgeloop.federated.device.connection import stock
from edgeloop.federated.device.connection.link import Link, parse_link
from edgeloop.federated.device.connection.node_file import read_node, write_node
from edgeloop.federated.device.options import DeviceOptions, from_node_config

httpx = pytest.importorskip("httpx")
from edgeloop.federated.device.connection.refusals import reason, refusal  # noqa: E402

PLAIN, KEYED = Link("h:1", insecure=True), Link("h:1", key="/k")


@pytest.mark.parametrize(
    ("url", "insecure", "address"),
    [
        ("h", False, "h:9092"),
        ("127.0.0.1:18000", True, "127.0.0.1:18000"),
        ("https://fed.example.org:443/", False, "fed.example.org:443"),
        ("http://h:1", True, "h:1"),
        ("[::1]:5", True, "[::1]:5"),
    ],
)
def test_an_address_is_read_as_people_write_it(url, insecure, address):
    assert parse_link(url, insecure=insecure, certificate=None, key=None).address == address


@pytest.mark.parametrize(
    ("url", "insecure", "says"),
    [
        ("http://h", False, "plain HTTP"),
        ("https://h", True, "so is --insecure"),
        ("h:99999", False, "not the address"),
        ("h:0", False, "not the address"),
        ("h/path", False, "not the address"),
        ("ftp://h", False, "not the address"),
        ("://h", False, "not the address"),
        ("", False, "not the address"),
        ("--insecure", False, "not the address"),
        ("https://me:secret@h:1", False, "^the address of the server holds a user name or a password"),
    ],
)
def test_an_address_that_is_none_is_refused(url, insecure, says):
    with pytest.raises(OptionsError, match=says):
        parse_link(url, insecure=insecure, certificate=None, key=None)


def test_a_file_that_is_no_certificate_or_no_key_is_named_before_anything_starts(tmp_path):
    file = tmp_path / "f"
    file.write_text("hello")
    with pytest.raises(DataError, match=f"{file} holds no certificate"):
        parse_link("h", insecure=False, certificate=str(file), key=None)
    file.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(DataError, match=f"{file} holds a damaged certificate"):
        parse_link("h", insecure=False, certificate=str(file), key=None)
    file.write_text("-----BEGIN CERTIFICATE-----" + "\n" * (1 << 20))
    with pytest.raises(DataError, match=f"{file} has more than 1048576 bytes"):
        parse_link("h", insecure=False, certificate=str(file), key=None)
    file.write_text("hello")
    with pytest.raises(DataError, match=f"{file} is no private key"):
        parse_link("h", insecure=False, certificate=None, key=str(file))
    with pytest.raises(DataError, match=r"missing cannot be read"):
        parse_link("h", insecure=False, certificate=str(tmp_path / "missing"), key=None)
    with pytest.raises(OptionsError, match="so is --root-certificate"):
        Link("h:1", insecure=True, certificate=str(file))


def answer(status: int, body: object = None, **headers: str):
    request = httpx.Request("POST", "http://h/v1/fleet/activate-node")
    response = httpx.Response(status, json=body, headers=headers, request=request)
    return httpx.HTTPStatusError("refused", request=request, response=response)


@pytest.mark.parametrize(
    ("error", "link", "joined", "says"),
    [
        (answer(412, {"code": 2001, "detail": "All must be registered"}), PLAIN, False, "registered keys only"),
        (
            answer(412, {"code": 2004, "detail": "Failed"}),
            KEYED,
            False,
            "does not take the key /k: it is not",
        ),
        (answer(401, {"detail": "Invalid"}), KEYED, False, "does not take the key /k"),
        (answer(412, {"code": 2004, "detail": "Failed"}), KEYED, True, "no longer takes the key /k"),
        (answer(426, {"code": 1001, "detail": "1.40 is not 1.42"}), PLAIN, False, "has another Flower: 1.40 is not"),
        (answer(404, {"detail": "Not Found"}), PLAIN, False, "answers HTTP 404: Not Found"),
    ],
)
def test_a_refusal_is_named(error, link, joined, says):
    found = refusal(error, link, joined=joined)
    assert isinstance(found, DeviceError) and says in found.found and found.advice


@pytest.mark.parametrize(
    ("error", "link", "joined"),
    [
        (httpx.ConnectError("refused"), KEYED, False),  # the server is not up
        (answer(503), KEYED, False),
        (answer(408), KEYED, False),
        (answer(429), PLAIN, False),
        (answer(404), PLAIN, True),  # a proxy whose server is away
        (answer(401, {"detail": "Invalid"}), PLAIN, True),  # started anew: this node registers itself again
        (answer(401, {"detail": "Invalid"}), KEYED, True),  # the same of a key: it takes a place there again
    ],
)
def test_what_may_work_later_is_no_refusal(error, link, joined):
    assert refusal(error, link, joined=joined) is None


def test_a_wrong_clock_is_named_with_its_error_in_seconds():
    late = answer(401, {"detail": "Invalid"}, date=formatdate(time.time() + 3600, usegmt=True))
    found = refusal(late, KEYED, joined=False)
    assert "the clock of this device is 3" in found.found and "s behind" in found.found


def test_a_bad_certificate_refuses_a_device_that_was_never_connected():
    cause = ssl.SSLCertVerificationError()
    cause.verify_message = "certificate has expired"
    error = httpx.ConnectError("x")
    error.__cause__ = cause
    found = refusal(error, KEYED, joined=False)
    assert isinstance(found, IntegrityError) and "certificate has expired" in found.found
    assert "Renew" in found.advice
    assert refusal(error, KEYED, joined=True) is None, "a hotel's network answers with a certificate of its own"
    assert reason(error) == "its certificate is refused: certificate has expired"


def test_a_node_is_remembered_for_its_key_on_its_server_alone(tmp_path):
    file = str(tmp_path / "node.json")
    assert read_node(file, "h:1", b"key") is None
    write_node(file, "h:1", b"key", 2**64 - 3)  # Flower's ids are unsigned 64-bit numbers
    assert read_node(file, "h:1", b"key") == 2**64 - 3
    assert read_node(file, "h:2", b"key") is None
    assert read_node(file, "h:1", b"other") is None
    (tmp_path / "node.json").write_text("[")
    assert read_node(file, "h:1", b"key") is None


def test_an_untried_flower_is_run_by_its_own_supernode(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(joining, "flower_version", lambda: "9.9.9")
    monkeypatch.setattr(stock, "run_supernode", lambda *arguments: ran.append(arguments))
    options = DeviceOptions("a.npz", str(tmp_path / "state"), keep_local=("head", "w0*"), signers="/s")
    joining.join(joining.JoinOptions(KEYED, options), print)
    ((link, config, say),) = ran
    assert (link, from_node_config(config), say) == (KEYED, options, print)
    assert not (tmp_path / "state").exists()


def test_the_supernode_gets_the_link_and_the_data(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    (tmp_path / "flower-supernode").touch()
    link = Link("h:1", certificate="/ca.pem", key="/k")
    found = stock.supernode(link, {"data": 'a "b".npz', "device": 0}, 5)
    assert found[1:] == [
        "--superlink", "h:1", "--host", "127.0.0.1", "--port", "5", "--root-certificates", "/ca.pem",
        "--auth-supernode-private-key", "/k", "--node-config", 'data="a \\u0022b\\u0022.npz" device=0',
    ]  # fmt: skip
    assert "--insecure" in stock.supernode(PLAIN, {}, 5)


def test_a_supernode_is_heard_and_its_end_kept(tmp_path):
    talk = "print('x' * 10_000); print('edgeloop: train failed: no disk'); print('  bye now.')"
    heard = []
    assert stock._run_once([sys.executable, "-c", talk], heard.append) == "exit code 0: bye now"
    assert heard == ["train failed: no disk"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "neither --signers nor --unsigned is given"),
        (["--insecure"], "neither --signers nor --unsigned is given"),
        (["--signers", "s", "--unsigned"], "--signers is given, and so is --unsigned"),
        (["--insecure", "--signers", "no-such-file"], "no-such-file"),  # plain HTTP, and signed models alone
    ],
)
def test_which_models_a_device_trains_is_said_once_however_it_is_connected(capfd, given, says):
    assert cli.run(["federate", "join", "127.0.0.1:1", "--data", "a.npz", *given]) == (10 if "file" in says else 2)
    assert says in capfd.readouterr().err


def test_two_devices_do_not_share_a_folder(tmp_path):
    with (
        joining.held_state(str(tmp_path)),
        pytest.raises(OptionsError, match="another device uses"),
        joining.held_state(str(tmp_path)),
    ):
        raise AssertionError("entered twice")
