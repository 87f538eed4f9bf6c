"""Malformed datagrams at a node, from a host of the lab.

    python -m forwarder.demo.fuzzer ADDRESS PORT RATE SEED

Sends RATE datagrams a second from sockets of ever new ports until its stdin ends, then prints how
many went.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

from forwarder.client import garbage

SOCKETS = 16
RENEW = 200  # datagrams after which one socket is replaced
TICK_S = 0.02


def main(address: str, port: int, rate: int, seed: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def new() -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        return sock

    sockets = [new() for _ in range(SOCKETS)]
    noise = garbage.datagrams(seed)
    print(json.dumps({"event": "ready"}), flush=True)
    start, sent, refused = time.monotonic(), 0, 0
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], TICK_S)
        if readable and not sys.stdin.readline():
            break
        while sent < (time.monotonic() - start) * rate:
            at = sent % SOCKETS
            if sent % RENEW == 0:
                sockets[at].close()
                sockets[at] = new()
            try:
                sockets[at].sendto(next(noise), (address, port))
            except OSError:
                refused += 1  # an ICMP answer, or no room: the next one goes
            sent += 1
    print(json.dumps({"event": "summary", "sent": sent, "refused": refused}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
