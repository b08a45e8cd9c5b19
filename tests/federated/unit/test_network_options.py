"""[network]: which tables contradict each other, what devices are told, and which certificates they would refuse."""

import base64
import socket
from pathlib import Path

import pytest

from edgeloop import cli
from edgeloop.errors import DataError, DeviceError, EdgeloopError, IntegrityError, OptionsError
from edgeloop.federated.network.options import NetworkOptions
from edgeloop.federated.rounds.federation import read_federation
from edgeloop.processes.ports import free_ports

pytest.importorskip("cryptography")
pytest.importorskip("flwr")
from joining import Authority, new_key

from edgeloop.federated.network.certificates import check_certificate, write_certificates
from edgeloop.federated.network.device_keys import read_device_keys, readable_device_keys
from edgeloop.federated.network.joining import check_joining

ED25519 = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32))  # RFC 8709: a key that Flower takes not
TLS = {"certificate": Path("s.pem"), "key": Path("s.key")}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, "without a certificate: whoever is on the way can read and change the weights"),
        ({"certificate": Path("s.pem")}, "one of certificate and key"),
        (TLS, "does not say which devices may take part"),
        ({**TLS, "device_keys": Path("k"), "any_device": True}, "device-keys, and any-device = true"),
        ({**TLS, "any_device": True, "insecure": True}, "a certificate, and insecure = true"),
        ({"insecure": True, "device_keys": Path("k")}, "device-keys, and no certificate"),
        (
            {"insecure": True, "root_certificate": Path("c"), "device_keys": Path("k")},
            "root-certificate and device-key",
        ),
        ({"insecure": True, "devices": 0}, r"\[network\] devices is 0"),
        ({"insecure": True, "wait_s": 0.0}, r"\[network\] wait-s is 0"),
        ({"insecure": True, "listen": "0.0.0.0:9092"}, "no address that a device can call"),
        ({"insecure": True, "listen": "http://h:1"}, "'http://h:1' is not the address of a server"),
        ({"insecure": True, "address": "h:99999"}, "'h:99999' is not the address of a server"),
    ],
)
def test_a_network_that_contradicts_itself_is_refused(more, says):
    with pytest.raises(OptionsError, match=says):
        NetworkOptions(**{"listen": "192.0.2.7:9092", "devices": 2, **more})


@pytest.mark.parametrize(
    ("options", "signed", "line"),
    [
        ({"listen": "127.0.0.1"}, False, "http://127.0.0.1:9092 --data DATA --insecure --unsigned"),
        (
            {"listen": "0.0.0.0:443", "address": "fed.example.org:443", **TLS, "any_device": True},
            True,
            "https://fed.example.org:443 --data DATA --signers SIGNERS",
        ),
        (
            {"listen": "192.0.2.7:1", **TLS, "device_keys": Path("k"), "root_certificate": Path("/certs/ca.pem")},
            False,
            "https://192.0.2.7:1 --data DATA --root-certificate ca.pem --key device-key --unsigned",
        ),
    ],
)
def test_owners_of_devices_get_the_command_that_fits_the_server(options, signed, line):
    said = NetworkOptions(devices=1, **options).join_command(signed=signed)
    assert said == f"edgeloop federate join {line}"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('[devices]\nshards = ["a.npz"]\n', "1 shards are given, and the devices of [network] hold their data"),
        ('[strategy]\nname = "scaffold"\n', "scaffold knows devices by their number"),
        ('[rounds]\nmode = "buffered"\n[buffered]\nsize = 3\n', "size"),
        ("", "[network] listens at 192.0.2.7:9092 without a certificate"),
    ],
)
def test_tables_that_contradict_a_network_end_the_command_with_2(tmp_path, capfd, more, says):
    insecure = "insecure = true\n" if more else ""
    (tmp_path / "f.toml").write_text(
        f'[model]\nbundle = "b"\n[network]\nlisten = "192.0.2.7:9092"\ndevices = 2\n{insecure}{more}'
    )
    assert cli.run(["federate", "run", str(tmp_path / "f.toml"), "-o", str(tmp_path / "out")]) == 2
    assert says in capfd.readouterr().err


def test_paths_of_a_network_are_relative_to_its_file(tmp_path):
    (tmp_path / "f.toml").write_text(
        '[model]\nbundle = "b"\n[network]\nlisten = "h"\ndevices = 3\ncertificate = "s.pem"\nkey = "s.key"\n'
        'device-keys = "keys"\n'
    )
    options = read_federation(tmp_path / "f.toml").rounds_options(tmp_path / "out")
    assert options.network.device_keys == tmp_path / "keys" and options.device_count == 3


def secured(folder, certificate, key, root, listen="127.0.0.1:9092") -> NetworkOptions:
    files = {"certificate": certificate, "key": key, "root_certificate": root}
    return NetworkOptions(listen=listen, devices=1, any_device=True, **files)


def test_a_made_certificate_is_what_devices_accept_and_a_renewed_one_needs_no_new_root(tmp_path):
    root, root_key, *pair = write_certificates(tmp_path / "c", ["127.0.0.1", "fed.example.org", "::1"], 30)
    before = root.read_bytes(), pair[0].read_bytes()
    for listen in ("127.0.0.1:9092", "fed.example.org:9092", "[::1]:9092"):
        check_certificate(secured(tmp_path, *pair, root, listen))
    assert {oct(file.stat().st_mode & 0o777) for file in (root_key, pair[1])} == {"0o600"}
    write_certificates(tmp_path / "c", ["127.0.0.1"], 30)
    check_certificate(secured(tmp_path, *pair, root))
    assert root.read_bytes() == before[0] and pair[0].read_bytes() != before[1]
    root_key.unlink()
    with pytest.raises(DataError, match=r"the authority in \S+ cannot be read"):
        write_certificates(tmp_path / "c", ["127.0.0.1"], 30)
    with pytest.raises(OptionsError, match="'h:9092', which is no name and no address"):
        write_certificates(tmp_path / "d", ["h:9092"], 30)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "host", ["1.2.3", "a..b", "a" * 70, "h:9092", "-a.b", "a-.b", "a.b.", "a.7", "a." * 127 + "ab", ""]
)
def test_what_can_be_no_name_and_no_address_is_not_signed(tmp_path, host):
    with pytest.raises(OptionsError, match="which is no name and no address"):
        write_certificates(tmp_path / "c", [host], 30)
    assert not (tmp_path / "c").exists()


def test_a_certificate_does_not_outlive_its_authority(tmp_path):
    with pytest.raises(OptionsError, match=r"--days is 3000000, and the authority in \S+ is valid for 3650 days"):
        write_certificates(tmp_path, ["pi_1.local", "7up.example.org"], 3_000_000)
    assert not list(tmp_path.iterdir())
    write_certificates(tmp_path, ["pi_1.local", "7up.example.org", "a" * 63], 3650)
    with pytest.raises(OptionsError, match=r"--days is 3650, and the authority in \S+ is valid for 3649 days"):
        write_certificates(tmp_path, ["h"], 3650)


def test_a_certificate_that_devices_would_refuse_is_named_before_the_run(tmp_path):
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    good, expired = authority.server("good", 30), authority.server("expired", -1)
    cases = [
        (*expired, authority.root, "127.0.0.1", IntegrityError, "certificate has expired"),
        (*good, stranger.root, "127.0.0.1", IntegrityError, "unable to get local issuer certificate"),
        (*good, authority.root, "192.0.2.7", IntegrityError, "IP address mismatch"),
        (*good, authority.root, "fed.example.org", IntegrityError, "Hostname mismatch"),
        (good[0], expired[1], authority.root, "127.0.0.1", DataError, "are no certificate and its key"),
        (tmp_path / "missing", good[1], authority.root, "127.0.0.1", DataError, "missing"),
    ]
    for certificate, key, root, host, kind, says in cases:
        with pytest.raises(kind, match=says) as raised:
            check_certificate(secured(tmp_path, certificate, key, root, f"{host}:9092"))
        assert isinstance(raised.value, EdgeloopError) and raised.value.advice


def test_a_folder_of_device_keys_holds_public_ec_keys_by_name(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_device_keys(tmp_path / "missing")
    for name in ("pi-1", "pi-2"):
        new_key(tmp_path / name)
    assert sorted(read_device_keys(tmp_path).values()) == ["pi-1", "pi-2"]
    (tmp_path / "pi-3.pub").write_text(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJ9u7kL5x8n3rY1cGmzL8r5Yq6a0n0Hq0o3X6b3zH1x\n"
    )
    (tmp_path / "pi-4.pub").write_text("hello")
    found, wrong = readable_device_keys(tmp_path)
    assert sorted(found.values()) == ["pi-1", "pi-2"] and sorted(wrong) == ["pi-3", "pi-4"]
    assert wrong["pi-3"].endswith("pi-3.pub is no EC key, and Flower takes no other kind")
    with pytest.raises(DataError, match=r"pi-3.pub is no"):
        read_device_keys(tmp_path)


def test_an_address_that_cannot_be_listened_at_is_refused_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=f"port {port} on 127.0.0.1 is in use"):
            check_joining(NetworkOptions(listen=f"127.0.0.1:{port}", devices=1))
    with pytest.raises(OptionsError, match="where this machine cannot listen"):
        check_joining(NetworkOptions(listen="192.0.2.77:9092", devices=1, insecure=True))
    check_joining(NetworkOptions(listen=f"127.0.0.1:{free_ports(1)[0]}", devices=1))
