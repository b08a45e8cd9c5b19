"""Free ports are free and differ; a wait for listeners names the one that never comes."""

import socket

from edgeloop.processes.ports import accepts, free_ports, wait_until_all_accept


def test_free_ports_differ_and_nobody_listens_on_them():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert not any(accepts(f"127.0.0.1:{port}") for port in ports)


def test_a_wait_names_the_addresses_that_stay_silent():
    (silent,) = free_ports(1)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        there = f"127.0.0.1:{listening.getsockname()[1]}"
        assert wait_until_all_accept([there], timeout_s=60) == []
        assert wait_until_all_accept([there, f"127.0.0.1:{silent}"], timeout_s=0) == [f"127.0.0.1:{silent}"]
