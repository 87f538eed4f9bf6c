"""The Python client: joins a room over QUIC, sends and receives SRTP, resumes.

    async with Client(url, token, cert_hash=digest) as client:
        await client.publish_file("clip.mp4")

It is a client like any other: it imports only the messages of the join protocol and the names of
codecs and suites from the rest of the package.  PyAV and pylibsrtp come with the extra `client`.
"""

from __future__ import annotations

from forwarder.client.control import ClientError
from forwarder.client.join import Client
from forwarder.client.subscribe import ReceivedPacket, RemoteTrack

__all__ = ["Client", "ClientError", "ReceivedPacket", "RemoteTrack"]
