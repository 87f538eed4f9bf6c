"""From the browsers' statistics and the node's status to the lab's result and its verdict.  Pure.

Fields of a pair: `packets_*` are RTP, sound and picture; `codes_read` counts distinct rendered
frames whose painted id and clock were read, `codes_wrong` frames whose code was not the
publisher's; `frames_lost` counts frames that the publisher encoded between the viewer's first and
last decoded frame and that the viewer did not decode, by painted number.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forwarder.demo.browser.losses import Lost
from forwarder.demo.browser.options import BrowserOptions
from forwarder.demo.browser.pace import Seen
from forwarder.demo.result import Outcome

GUESS_OFF = 8  # so far off may the guessed number of an encoded frame be
CODES_SHARE = 0.5  # of the frames encoded while somebody watched, so many must have been read
FLAWLESS = ("packets_lost", "frames_lost", "freezes")  # zero where nothing is lost on purpose
OF_LAYERS = ("packets_lost", "freezes")
"""The same of a publisher with layers: their encoders skip frames each by itself, and frames are
counted of the one that encoded most, whichever was watched."""
LOST_SHARE = 0.01  # of the frames; with repair no more may be lost for good
UNSUPPORTED = "codec_unsupported"  # a slot's state
EXPLAINED = ("stun", "dtls", "quic")  # classes of datagrams that belong to the supervisor


@dataclass
class Evidence:
    """What was gathered.  The three statuses are the node's: before anybody joined, after the
    browsers' last statistics, and after they had left and nothing was waiting."""

    options: BrowserOptions
    browsers: list[Seen]
    before: dict[str, Any]
    media: dict[str, Any]
    after: dict[str, Any]
    kernel_udp_datagrams: int
    node_exit: int
    node_log: str = ""  # its end
    delete_statuses: list[int] = field(default_factory=list)
    screenshots: list[str] = field(default_factory=list)
    lost: Lost = field(default_factory=Lost)


@dataclass
class Verdict(Outcome):
    """`unsteady` are those of the faults that a machine that is too slow causes: packets, frames
    and codes too few, freezes, pauses.  For all others no machine is too slow."""

    unsteady: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        return [fault for fault in self.faults if fault not in self.unsteady]


def conclude(evidence: Evidence) -> Verdict:
    """The JSON object of the contract, and every fault in a sentence."""
    before, after = evidence.before, evidence.after
    pairs = [pair for viewer in evidence.browsers for pair in _pairs(evidence, viewer)]
    explained = {
        name: after["slow_path"].get(name, 0) - before["slow_path"].get(name, 0)
        for name in EXPLAINED
    }
    report: dict[str, Any] = {
        "path": after["path"],
        "participants": len(evidence.browsers),
        "browsers": [
            {"id": b.id, "name": b.name, "version": b.version, "srtp_cipher": _cipher(b)}
            for b in evidence.browsers
        ],
        "pairs": pairs,
        "loss": _loss(evidence.browsers, evidence.lost),
        "media_packets_in": _grown(before, evidence.media, "routed"),
        "media_packets_out": _grown(before, evidence.media, "transmitted"),
        "slow_path_media_packets": _grown(before, after, "rx_socket"),
        "kernel_udp_datagrams": evidence.kernel_udp_datagrams,
        "kernel_udp_explained": explained,
        "drops": drops(after),
    }
    imbalances = _imbalances(evidence, report)
    report["accounting_balanced"] = not imbalances
    report["join_ms"] = [round(ms, 1) for b in evidence.browsers for ms in b.join_ms]
    report["screenshots"] = evidence.screenshots
    unsteady = _unsteady(evidence, report)
    return Verdict(report, imbalances + _faults(evidence, report) + unsteady, unsteady=unsteady)


def frames_lost(
    encoded: list[tuple[int, int]],
    rendered: list[tuple[int, int]],
    decoded: list[int],
    unread: list[int],
    frames_decoded: int,
) -> int | None:
    """By painted number, between the viewer's first and last frame; None when it is not known
    which encoded frames were rendered.

    `encoded` and `rendered` are (RTP timestamp, number) at the publisher and at the viewer; the
    numbers of `encoded` are guesses from times (page.js).  The forwarder adds one offset to the
    timestamps of a stream, so that what was read tells which encoded frame it was.  What is decoded
    was encoded: where both are counted between the same two frames, they differ by the lost ones.

    `decoded` are the numbers read.  Chromium hands out each decoded frame: `unread` are the RTP
    timestamps of those whose code could not be read.  Firefox shows rendered frames alone: there
    `unread` are the timestamps of all that arrived whole, so that of a frame which was not rendered
    is known that it arrived, and that the decoder's own count (`frames_decoded`) has room for it.
    What a browser decoded and gave to nobody (too late to be shown) is in that count alone.
    """
    places = _places(encoded, rendered)
    if not places:
        return None
    (first, low), (last, high) = min(places), max(places)
    taken = sum(1 for number in set(decoded) if low <= number <= high)
    times = {number: rtp for rtp, number in rendered}
    begin, end = times[low], times[high]
    more = set(unread) - set(times.values())
    between = sum(1 for rtp in more if (rtp - begin) % 2**32 <= (end - begin) % 2**32)
    taken += min(between, max(0, frames_decoded - taken))
    unseen = max(0, frames_decoded - len(set(decoded)) - len(more))
    return max(0, last - first + 1 - taken - unseen)


def _places(
    encoded: list[tuple[int, int]], rendered: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """(position in `encoded`, number) of each rendered frame that is known again."""
    guesses = [number for _, number in encoded]
    near: Counter[int] = Counter()
    for rtp, number in rendered:
        low = bisect_left(guesses, number - GUESS_OFF)
        high = bisect_right(guesses, number + GUESS_OFF)
        near.update((rtp - encoded[at][0]) % 2**32 for at in range(low, high))
    if not near:
        return []
    offset = near.most_common(1)[0][0]
    position = {(rtp + offset) % 2**32: at for at, (rtp, _) in enumerate(encoded)}
    return [(position[rtp], number) for rtp, number in rendered if rtp in position]


def _pairs(evidence: Evidence, viewer: Seen) -> list[dict[str, Any]]:
    encoded = {browser.id: browser.snapshot["encoded"] for browser in evidence.browsers}
    pairs = []
    for view in viewer.snapshot["views"]:
        rtp: list[dict[str, Any]] = view["statistics"]["rtp"]
        video: dict[str, Any] = next(
            (r for r in rtp if r.get("kind") == "video" and "framesDecoded" in r), {}
        )
        audio: dict[str, Any] = next((r for r in rtp if r.get("kind") == "audio"), {})
        sent, decoded = encoded[view["from"]], video.get("framesDecoded", 0)
        unread = view["unread"] if view["each_decoded"] else view["received"]
        lost = frames_lost(sent, view["rendered"], view["decoded"], unread, decoded)
        pairs.append(
            {
                "from": view["from"],
                "to": viewer.id,
                "codec": _codec(view, video),
                "frames_decoded": decoded,
                "codes_read": len(view["rendered"]),
                "codes_wrong": view["wrong"],
                "packets_received": sum(r.get("packetsReceived", 0) for r in (video, audio)),
                "packets_lost": sum(r.get("packetsLost", 0) for r in (video, audio)),
                "frames_published": len(sent),
                # Not known, which is a fault of its own: none of them is seen to have come.
                "frames_lost": len(sent) if view["rendered"] and lost is None else lost or 0,
                "freezes": video.get("freezeCount", 0),
                "audio_energy": round(audio.get("totalAudioEnergy", 0.0), 6),
                "width": video.get("frameWidth", 0),
                "height": video.get("frameHeight", 0),
            }
        )
    return pairs


def _codec(view: Mapping[str, Any], video: Mapping[str, Any]) -> str:
    """Of the picture; `codec_unsupported` when the viewer was told that it cannot decode it."""
    if view["state"] == UNSUPPORTED:
        return UNSUPPORTED
    return str(video.get("codec") or "").removeprefix("video/").lower()


def _connections(browser: Seen) -> list[dict[str, Any]]:
    """Statistics of each of its associations, the publishing one first."""
    return [browser.snapshot["publish"], *(v["statistics"] for v in browser.snapshot["views"])]


def _cipher(browser: Seen) -> str:
    """Of all its associations; they agree, or each is named."""
    found = {str(c["transport"].get("srtpCipher", "")) for c in _connections(browser)}
    return ",".join(sorted(found))


def _loss(browsers: list[Seen], lost: Lost) -> dict[str, int]:
    """What was dropped on purpose; repair is what the browsers counted."""
    rtp = [entry for b in browsers for c in _connections(b) for entry in c["rtp"]]
    return {
        "offered": lost.offered,
        "dropped": lost.dropped,
        "rtx_in": sum(entry.get("retransmittedPacketsSent", 0) for entry in rtp),
        "rtx_out": sum(entry.get("retransmittedPacketsReceived", 0) for entry in rtp),
        "nacks": sum(entry.get("nackCount", 0) for entry in rtp),
    }


def _grown(before: Mapping[str, Any], after: Mapping[str, Any], counter: str) -> int:
    return int(after["counters"][counter]) - int(before["counters"][counter])


def drops(status: Mapping[str, Any]) -> dict[str, int]:
    """By reason: of the workers (copies as copy_REASON), and of the steering programs."""
    found: dict[str, int] = {}
    steering = status["steering"]
    for verdicts, prefix in (
        (status["drops"], ""),
        (steering["verdicts"], "drop_"),
        (steering["select_verdicts"], "drop_"),
    ):
        for label, count in verdicts.items():
            if count and label.startswith(prefix):
                found[label] = found.get(label, 0) + count
    copies = {f"copy_{label}": count for label, count in status["copy_drops"].items() if count}
    return found | copies


def _imbalances(evidence: Evidence, report: Mapping[str, Any]) -> list[str]:
    """Each law that does not hold, in a sentence."""
    status, faults = evidence.after, []
    counters = status["counters"]
    if restarts := status["dataplane"]["restarts"] - evidence.before["dataplane"]["restarts"]:
        # Its counters begin anew, so the other laws cannot hold.
        return [f"the data plane was restarted ({restarts}): {evidence.node_log}"]

    def law(name: str, left: int, right: int) -> None:
        if left != right:
            faults.append(f"{name}: {left} is not {right}")

    taken = counters["routed"] + counters["consumed"] + sum(status["drops"].values())
    law("received by workers = routed + consumed + dropped", counters["rx"], taken)
    left = counters["transmitted"] + counters["queued"] + sum(status["copy_drops"].values())
    law("copies = transmitted + queued + dropped", counters["copies"], left)
    if not status["balanced"]:
        faults.append(f"the node's own books: {status['imbalance']}")
    kernel = sum(report["kernel_udp_explained"].values())
    if status["path"] == "udp":
        kernel += report["slow_path_media_packets"]
    else:
        steered = status["steering"]["verdicts"].get("redirect_media", 0)
        received = counters["rx_xsk"] + counters["xsk_rx_dropped"]
        law("steered = received from AF_XDP + dropped there", steered, received)
        law("media on the kernel's way", report["slow_path_media_packets"], 0)
    law("datagrams of the kernel = explained", report["kernel_udp_datagrams"], kernel)
    published = sum(
        entry.get("packetsSent", 0)
        for browser in evidence.browsers
        for entry in browser.snapshot["publish"]["rtp"]
    )
    if report["media_packets_in"] > published:
        faults.append(f"routed {report['media_packets_in']}, but browsers sent {published}")
    received = sum(pair["packets_received"] for pair in report["pairs"])
    if received > report["media_packets_out"]:
        faults.append(
            f"browsers received {received}, but {report['media_packets_out']} were transmitted"
        )
    return faults


def _faults(evidence: Evidence, report: Mapping[str, Any]) -> list[str]:
    """What a viewer would call wrong, on whatever machine."""
    faults = []
    count, codec = len(evidence.browsers), evidence.options.codec
    senders = sum(1 for browser in evidence.browsers if browser.sends)
    if len(report["pairs"]) != senders * (count - 1):
        faults.append(f"{len(report['pairs'])} pairs, not {senders * (count - 1)}")
    for pair in report["pairs"]:
        who = f"{pair['from']} to {pair['to']}"
        if _unsupported(evidence, pair):
            if pair["frames_decoded"] or not pair["audio_energy"]:
                faults.append(f"{who}: a picture that cannot be decoded, or no sound: {pair}")
            continue
        if pair["codes_wrong"]:
            faults.append(f"{who}: codes_wrong {pair['codes_wrong']}")
        for key in ("frames_decoded", "codes_read", "audio_energy"):
            if not pair[key]:
                faults.append(f"{who}: no {key}")
        if pair["codec"] != codec:
            faults.append(f"{who}: the codec is {pair['codec'] or 'unknown'}, not {codec}")
    for browser in evidence.browsers:
        faults += lost_or_wrong(browser) + _unplaced(evidence, browser)
    if bad := [status for status in evidence.delete_statuses if status // 100 != 2]:
        faults.append(f"DELETE was answered {bad}")
    if evidence.node_exit != 0:
        faults.append(f"`vcfwd up` ended with exit status {evidence.node_exit}")
    return faults


def _unsteady(evidence: Evidence, report: Mapping[str, Any]) -> list[str]:
    """What a viewer would call wrong, and a machine that is too slow causes as well."""
    faults, options = [], evidence.options
    for pair in report["pairs"]:
        who = f"{pair['from']} to {pair['to']}"
        if _unsupported(evidence, pair):
            continue
        flawless = OF_LAYERS if pair["from"] == options.simulcast_by else FLAWLESS
        faults += [f"{who}: {k} {pair[k]}" for k in flawless if pair[k] and not options.loss]
        if options.loss and options.repair:
            lost, published = pair["frames_lost"], pair["frames_published"]
            if lost > LOST_SHARE * published:
                faults.append(f"{who}: {lost} of {published} frames were lost for good")
        due = min(pair["frames_published"], options.fps * options.seconds)
        if pair["codes_read"] < CODES_SHARE * due and options.repair:
            faults.append(f"{who}: only {pair['codes_read']} of {due:g} frames were read")
    for browser in evidence.browsers:
        # Nobody moves here: a page that looks for another way has lost count of what arrives, or
        # nothing did for more than a second.
        session = browser.snapshot.get("session")
        if session and session["restarts"] and not options.loss:
            faults.append(f"browser {browser.id} restarted ICE {session['restarts']} times")
    return faults


def _unsupported(evidence: Evidence, pair: Mapping[str, Any]) -> bool:
    """Whether the viewer was told, and rightly, that it cannot decode the picture."""
    viewer = next(browser for browser in evidence.browsers if browser.id == pair["to"])
    return bool(pair["codec"] == UNSUPPORTED and not viewer.sends)


def _unplaced(evidence: Evidence, viewer: Seen) -> list[str]:
    """Frames that were read and are none of those encoded: what was lost is not known then.  A
    publisher of layers may have some: only one of its layers is compared."""
    encoded, faults = {one.id: one.snapshot["encoded"] for one in evidence.browsers}, []
    for view in viewer.snapshot["views"]:
        read, sender = len(view["rendered"]), view["from"]
        placed = len(_places(encoded[sender], view["rendered"]))
        if placed < (min(1, read) if sender == evidence.options.simulcast_by else read):
            faults.append(
                f"{sender} to {viewer.id}: only {placed} of {read} frames that were read are among "
                "those encoded, so it is not known how many were lost"
            )
    return faults


def lost_or_wrong(browser: Seen) -> list[str]:
    """A connection that is not there, pictures of somebody else."""
    faults = []
    if any(c["state"] != "connected" for c in _connections(browser)):
        faults.append(f"browser {browser.id} lost a connection")
    for view in browser.snapshot["views"]:
        for wrong in view["wrong_seen"]:
            faults.append(f"{view['from']} to {browser.id}: a wrong code: {wrong}")
    return faults


def other_codecs(browser: Seen, codec: str) -> list[str]:
    """What it sees in another codec than this one, as far as it knows."""
    return [
        f"{view['from']} to {browser.id}: the codec is {entry['codec']}, not {codec}"
        for view in browser.snapshot["views"]
        for entry in view["statistics"]["rtp"]
        if entry["kind"] == "video" and entry["codec"] and _codec(view, entry) != codec
    ]
