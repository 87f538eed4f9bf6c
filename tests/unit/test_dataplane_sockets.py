"""The SO_REUSEPORT group of a local address: order, buffers, refusals, adoption."""

from __future__ import annotations

import os
import socket

import pytest

from forwarder.dataplane.selector import attach_classic
from forwarder.dataplane.setup import Local
from forwarder.dataplane.sockets import adopt_group, open_group
from forwarder.errors import HostError

MEDIA, STUN = b"\x80media", b"\x00\x01stun"


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_the_order_of_binding_is_the_index_in_the_group(ip):
    seen = []

    def attach(group):
        seen.append(group)
        attach_classic(group.sockets)

    group = open_group(Local(ip, 0), 1, attach)
    client = socket.socket(group.slow.family, socket.SOCK_DGRAM)
    try:
        assert seen == [group]
        assert group.local.port != 0
        names = {sock.getsockname() for sock in group.sockets}
        assert len(names) == 1 and len(group.sockets) == 2
        for data in (MEDIA, STUN):
            client.sendto(data, (ip, group.local.port))
        for sock, data in ((group.media[0], MEDIA), (group.slow, STUN)):
            sock.settimeout(5)
            assert sock.recv(100) == data
    finally:
        client.close()
        group.close()


def test_media_sockets_keep_more_than_a_default_socket():
    group = open_group(Local("127.0.0.1", 0), 2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    try:
        for sock in group.media:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= default
            assert not sock.getblocking()
            assert not sock.get_inheritable()
    finally:
        group.close()


def test_adopted_sockets_are_the_same_ones():
    group = open_group(Local("127.0.0.1", 0), 1)
    slow, media = (os.dup(sock.fileno()) for sock in group.sockets)
    adopted = adopt_group(group.local, slow, [media])
    try:
        assert adopted.slow.getsockname() == group.slow.getsockname()
        assert adopted.slow.family == socket.AF_INET
    finally:
        adopted.close()
        group.close()


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_a_wildcard_is_refused(wildcard):
    with pytest.raises(HostError, match="wildcard"):
        open_group(Local(wildcard, 4433), 1)


def test_a_failing_selector_leaves_nothing_open():
    ports = []

    def attach(group):
        ports.append(group.local.port)
        raise HostError("no")

    with pytest.raises(HostError, match="no"):
        open_group(Local("127.0.0.1", 0), 1, attach)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", ports[0]))
