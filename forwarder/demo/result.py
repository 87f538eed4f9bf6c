"""From logs, summaries and the node's status to the demo's result and its verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from forwarder.client.packetlog import Entry
from forwarder.demo.accounting import (
    TrackAccount,
    account,
    longest_pause_ms,
    lost_outside_gap,
)
from forwarder.demo.cast import Actor
from forwarder.demo.options import Chaos


@dataclass
class Evidence:
    """What was gathered while the call ran."""

    actors: list[Actor]
    chaos: Chaos | None
    status: dict[str, Any]  # of the node when all was quiet
    duration_s: float
    kernel_udp_datagrams: int
    node_exit: int
    restarts: int = 0
    fault_ns: int | None = None
    taps: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Outcome:
    """The JSON object of the contract, and why it is not good, if it is not."""

    report: dict[str, Any]
    faults: list[str]
    memory: dict[str, Any] = field(default_factory=dict)  # of the node, with the room full


@dataclass
class _Seen:
    """One subscriber's account."""

    actor: Actor
    entry: dict[str, Any]
    tracks: list[TrackAccount]
    pause_ms: float


def conclude(evidence: Evidence) -> Outcome:
    """Pure but for reading the packet logs."""
    published: dict[str, list[Entry]] = {}
    logs = {actor.name: actor.packets() for actor in evidence.actors}
    for actor in evidence.actors:
        for track in actor.sent_tracks():
            log = logs[actor.name].get(track)
            published[track] = log.entries if log is not None else []
    seen = []
    for actor in evidence.actors:
        if actor.subscribes:
            received = {
                track: log.entries
                for track, log in logs[actor.name].items()
                if track not in actor.sent_tracks()
            }
            seen.append(_subscriber(actor, published, received))
    stages = _stages(evidence, published, seen)
    report: dict[str, Any] = {
        "path": evidence.status["path"],
        "duration_s": round(evidence.duration_s, 2),
        "published_packets": stages["published"],
        "subscribers": [each.entry for each in seen],
        "stages": stages,
        "kernel_udp_datagrams": evidence.kernel_udp_datagrams,
        "drops": _drops(evidence.status),
    }
    imbalances = _imbalances(evidence, stages, seen)
    report["accounting_balanced"] = not imbalances
    faults = imbalances + _faults(evidence, seen)
    if evidence.chaos is not None:
        faults += _chaos(evidence, report, seen)
    return Outcome(report, faults, evidence.status["memory"])


def _subscriber(
    actor: Actor, published: dict[str, list[Entry]], received: dict[str, list[Entry]]
) -> _Seen:
    own = set(actor.sent_tracks())
    tracks = [
        account(track, entries, received.get(track, []), late=actor.joined == "late")
        for track, entries in published.items()
        if track not in own
    ]
    strangers = sum(len(log) for track, log in received.items() if track not in published)
    summary = actor.summary or {}
    expected = sum(each.expected for each in tracks)
    got = sum(each.received for each in tracks)
    entry = {
        "joined": actor.joined,
        "join_ms": summary.get("join_ms"),
        "first_frame_ms": summary.get("first_frame_ms"),
        "expected_packets": expected,
        "received_packets": got,
        "lost": expected - got,
        "payload_mismatches": sum(each.mismatches for each in tracks) + strangers,
        "client_socket_drops": summary.get("socket_drops"),
        "video_frames_decoded": summary.get("video_frames_decoded"),
        "audio_frames_decoded": summary.get("audio_frames_decoded"),
    }
    return _Seen(actor, entry, tracks, longest_pause_ms(received))


def _stages(
    evidence: Evidence, published: dict[str, list[Entry]], seen: list[_Seen]
) -> dict[str, Any]:
    counters = evidence.status["counters"]
    verdicts = evidence.status["steering"]["verdicts"]
    return {
        "published": sum(len(entries) for entries in published.values()),
        "steered": verdicts.get("redirect_media", 0),
        "xsk_received": counters["rx_xsk"],
        "xsk_dropped": counters["xsk_rx_dropped"],
        "routed": counters["routed"],
        "copies": counters["copies"],
        "copies_dropped": {
            label: count for label, count in evidence.status["copy_drops"].items() if count
        },
        "transmitted": counters["transmitted"],
        "received": sum(
            each.entry["received_packets"] + each.entry["payload_mismatches"] for each in seen
        ),
    }


def _drops(status: dict[str, Any]) -> dict[str, int]:
    """By reason: of the workers, and of the steering programs."""
    drops = {label: count for label, count in status["drops"].items() if count}
    steering = status["steering"]
    for verdicts in (steering["verdicts"], steering["select_verdicts"]):
        for label, count in verdicts.items():
            if label.startswith("drop_") and count:
                drops[label] = drops.get(label, 0) + count
    return drops


def _imbalances(evidence: Evidence, stages: dict[str, Any], seen: list[_Seen]) -> list[str]:
    """Each law that does not hold, in a sentence."""
    status, faults = evidence.status, []
    counters = status["counters"]

    def law(name: str, left: int, right: int) -> None:
        if left != right:
            faults.append(f"{name}: {left} is not {right}")

    taken = counters["routed"] + counters["consumed"] + sum(status["drops"].values())
    law("received by workers = routed + consumed + dropped", counters["rx"], taken)
    left = counters["transmitted"] + counters["queued"] + sum(status["copy_drops"].values())
    law("copies = transmitted + queued + dropped", counters["copies"], left)
    if not status["balanced"]:
        faults.append(f"the node's own books: {status['imbalance']}")
    outside = lost_outside_gap([t for each in seen for t in each.tracks], evidence.fault_ns)
    if evidence.chaos is not None and evidence.chaos.may_lose:
        # The counters begin anew with the data plane: what left the publishers and what
        # arrived is compared packet by packet, outside the one run.
        law("losses outside the gap", outside, 0)
        return faults
    law("routed = published", counters["routed"], stages["published"])
    law("received by bots = transmitted", stages["received"], counters["transmitted"])
    if status["path"] != "udp":
        law(
            "steered = received from AF_XDP + dropped there",
            stages["steered"],
            stages["xsk_received"] + stages["xsk_dropped"],
        )
    return faults


def _faults(evidence: Evidence, seen: list[_Seen]) -> list[str]:
    """What a viewer would call wrong."""
    faults = []
    may_lose = evidence.chaos is not None and evidence.chaos.may_lose
    for each in seen:
        name, entry = each.actor.name, each.entry
        if entry["join_ms"] is None:
            faults.append(f"{name} did not join")
        if not entry["received_packets"]:
            faults.append(f"{name} received nothing")
        if entry["lost"] and not may_lose:
            faults.append(f"{name} lost {entry['lost']} packets")
        for key in ("payload_mismatches", "client_socket_drops"):
            if entry[key]:
                faults.append(f"{name}: {key} {entry[key]}")
        for key in ("video_frames_decoded", "audio_frames_decoded"):
            if not entry[key]:
                faults.append(f"{name}: no {key}")
        for key in ("srtp_failures", "bad_messages"):
            if found := (each.actor.summary or {}).get(key):
                faults.append(f"{name}: {key} {found}")
        if each.actor.png is not None and not each.actor.png.is_file():
            faults.append(f"{name} has no picture")
    if not any(each.tracks for each in seen):
        faults.append("nothing was published")
    if evidence.node_exit != 0:
        faults.append(f"`vcfwd up` ended with exit status {evidence.node_exit}")
    return faults


def _chaos(evidence: Evidence, report: dict[str, Any], seen: list[_Seen]) -> list[str]:
    summaries = [actor.summary or {} for actor in evidence.actors]
    accounts = [track for each in seen for track in each.tracks]
    fault_ns = evidence.fault_ns if evidence.chaos and evidence.chaos.may_lose else None
    report |= {
        "lost": sum(each.entry["lost"] for each in seen),
        "lost_outside_gap": lost_outside_gap(accounts, fault_ns),
        "gap_ms": max((each.pause_ms for each in seen), default=0.0),
        "restarts": evidence.restarts,
        "resumed": sum(summary.get("resumed", 0) for summary in summaries),
        "rejoined": sum(summary.get("rejoined", 0) for summary in summaries),
        "index_reuse": sum(tap["index_reuse"] for tap in evidence.taps),
    }
    faults = []
    for key in ("lost_outside_gap", "rejoined", "index_reuse"):
        if report[key]:
            faults.append(f"{key}: {report[key]}")
    if evidence.chaos is not Chaos.GARBAGE and report["restarts"] < 1:
        faults.append("nothing was restarted")
    if evidence.chaos is Chaos.SUPERVISOR and report["resumed"] < len(summaries):
        faults.append(f"only {report['resumed']} of {len(summaries)} clients resumed")
    for tap in evidence.taps:
        if tap["missed"] or tap["full"]:
            faults.append(f"the tap did not see every packet: {tap}")
        if not tap["packets"]:
            faults.append("the tap saw nothing")
    return faults
