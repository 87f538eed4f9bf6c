"""GStreamer's webrtcbin as a WHIP publisher, by the system's Python (Debian: python3-gi).

/usr/bin/python3 gst_publish.py URL PICTURE SOUND     the token on stdin; ends with its stdin

PICTURE and SOUND: how RTP of each is made, in GStreamer's words.
"""

import json
import ssl
import sys
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

TIMEOUT_S = 20
PIPELINE = """
webrtcbin name=peer bundle-policy=max-bundle
{} ! peer.
{} ! peer.
"""


def say(**event):
    print(json.dumps(event), flush=True)


def post(url, token, offer):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    request = urllib.request.Request(url, offer.encode(), headers, method="POST")
    trust = ssl._create_unverified_context()  # the node's certificate is its own
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=trust) as answer:
        return answer.read().decode()


def main(url, picture, sound, token):
    Gst.init(None)
    pipeline = Gst.parse_launch(PIPELINE.format(picture, sound))
    peer, loop = pipeline.get_by_name("peer"), GLib.MainLoop()

    def made(promise, *_):
        reply = promise.get_reply()  # it owns the offer: it must stay
        offer = reply.get_value("offer")
        peer.emit("set-local-description", offer, Gst.Promise.new())
        _, message = GstSdp.SDPMessage.new_from_text(post(url, token, offer.sdp.as_text()))
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        peer.emit("set-remote-description", answer, Gst.Promise.new())
        say(event="answered")

    def needed(*_):
        peer.emit("create-offer", None, Gst.Promise.new_with_change_func(made, None))

    def spoken(_, message):
        if message.type == Gst.MessageType.ERROR:
            print(message.parse_error(), file=sys.stderr)
            loop.quit()
        return True

    peer.connect("on-negotiation-needed", needed)
    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", spoken)
    GLib.io_add_watch(sys.stdin, GLib.IO_HUP, lambda *_: loop.quit())
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)


if __name__ == "__main__":
    main(*sys.argv[1:], sys.stdin.readline().strip())
