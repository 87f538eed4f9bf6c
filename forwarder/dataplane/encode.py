"""Command values -> records of c_helpers/include/vcfwd/abi.h; event records -> values.  Pure."""

from __future__ import annotations

from typing import Any

from forwarder.commands import (
    Begin,
    Command,
    KeyframeRequest,
    LegHeader,
    LegRate,
    LegRemove,
    LegSet,
    RouteFilter,
    RouteRemove,
    RouteSet,
    SourceRemove,
    SourceSet,
)
from forwarder.dataplane.abi import ffi, lib
from forwarder.dataplane.addresses import pack_ip
from forwarder.dataplane.events import (
    Bound,
    EstimateReceived,
    Event,
    FeedbackReceived,
    SourceActive,
    SourceEnded,
)
from forwarder.table import Leg, Route, Source


def _be16(port: int) -> int:
    """A port as its two network-order bytes read by a little-endian host."""
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def _bytes(to: Any, value: bytes) -> None:
    ffi.memmove(to, value, len(value))


def _leg_set(to: Any, leg: Leg) -> None:
    to.leg, to.owner, to.digest, to.key_id = leg.id, leg.worker, leg.digest, leg.key_id
    to.suite, to.local = int(leg.suite), leg.local
    for name in ("rx_key", "tx_key", "rx_salt", "tx_salt"):
        _bytes(getattr(to, name), getattr(leg, name))
    to.tuple_cnt = len(leg.tuples)
    to.nominated = lib.VC_NONE if leg.nominated is None else leg.nominated
    for i, tuple5 in enumerate(leg.tuples):
        _bytes(to.tuples[i].remote_ip, pack_ip(tuple5.remote_ip))
        _bytes(to.tuples[i].local_ip, pack_ip(tuple5.local_ip))
        to.tuples[i].remote_port_be = _be16(tuple5.remote_port)
        to.tuples[i].local_port_be = _be16(tuple5.local_port)
    to.rate_bps, to.rtcp_ssrc = leg.rate_bps, leg.rtcp_ssrc
    to.dscp_audio, to.dscp_video = leg.dscp_audio, leg.dscp_video
    _bytes(to.rx_ext, bytes(leg.rx_ext))
    _bytes(to.tx_ext, bytes(leg.tx_ext))
    _bytes(to.cname, leg.cname.encode())
    for agreed, flag in (
        (leg.nack, lib.VC_LEG_NACK),
        (leg.nack_audio, lib.VC_LEG_NACK_AUDIO),
        (leg.feedback, lib.VC_LEG_FEEDBACK),
    ):
        to.flags |= flag if agreed else 0


def _leg_header(to: Any, command: LegHeader) -> None:
    template = command.template
    to.leg, to.generation = command.leg, template.generation & 0xFFFFFFFF
    if template.interface is None:
        to.port, to.header_sz, to.l3_off = lib.VC_PORT_SOCKET, 0, 0
        return
    to.port, to.l3_off = template.interface, template.l3_off
    to.header_sz = len(template.header)
    _bytes(to.header, template.header)


def _source_set(to: Any, source: Source) -> None:
    to.source, to.leg, to.digest = source.id, source.leg, source.digest
    if source.ssrc is not None:
        to.flags |= lib.VC_SOURCE_BY_SSRC
        to.ssrc = source.ssrc
    if source.mid or source.rid:
        to.flags |= lib.VC_SOURCE_BY_LABEL
    if source.by_pt:
        to.flags |= lib.VC_SOURCE_BY_PT
    _bytes(to.mid, source.mid.encode())
    _bytes(to.rid, source.rid.encode())
    to.clock_hz, to.pt = source.clock_hz, source.pt
    to.queue, to.codec = int(source.queue), int(source.codec)
    to.rtx_pt, to.rtx_ssrc = source.rtx_pt or 0, source.rtx_ssrc or 0
    to.red_pt = source.red_pt or 0


def _route_set(to: Any, route: Route) -> None:
    to.route, to.leg, to.digest = route.id, route.leg, route.digest
    to.source, to.source_owner = route.source, route.source_worker
    to.out_ssrc, to.ts_offset, to.seq_start = route.out_ssrc, route.ts_offset, route.seq_start
    to.pt, to.flags = route.pt, lib.VC_ROUTE_GATED if route.gated else 0
    to.red_pt = route.red_pt or 0
    _bytes(to.mid, route.mid.encode())
    if route.rtx_ssrc is not None and route.rtx_pt is not None:
        to.rtx_ssrc, to.rtx_pt, to.rtx_seq_start = (
            route.rtx_ssrc,
            route.rtx_pt,
            route.rtx_seq_start,
        )


def encode(command: Command, command_id: int) -> Any:
    """A fresh `struct vc_command *` of one command."""
    record = ffi.new("struct vc_command *")
    record.id = command_id
    u = record.u
    match command:
        case LegSet(leg):
            record.type = lib.VC_CMD_LEG_SET
            _leg_set(u.leg_set, leg)
        case LegHeader():
            record.type = lib.VC_CMD_LEG_HEADER
            _leg_header(u.leg_header, command)
        case LegRate(leg_id, rate_bps):
            record.type = lib.VC_CMD_LEG_RATE
            u.leg_rate.leg, u.leg_rate.rate_bps = leg_id, rate_bps
        case LegRemove(leg_id):
            record.type, u.id.id = lib.VC_CMD_LEG_REMOVE, leg_id
        case SourceSet(source, resume):
            record.type = lib.VC_CMD_SOURCE_SET
            _source_set(u.source_set, source)
            u.source_set.resume = int(resume)
        case SourceRemove(source_id):
            record.type, u.id.id = lib.VC_CMD_SOURCE_REMOVE, source_id
        case RouteSet(route):
            record.type = lib.VC_CMD_ROUTE_SET
            _route_set(u.route_set, route)
        case RouteFilter(route_id, paused, max_spatial, max_temporal):
            record.type = lib.VC_CMD_ROUTE_FILTER
            to = u.route_filter
            to.route, to.paused = route_id, int(paused)
            to.max_spatial, to.max_temporal = max_spatial, max_temporal
        case RouteRemove(route_id):
            record.type, u.id.id = lib.VC_CMD_ROUTE_REMOVE, route_id
        case KeyframeRequest(source_id):
            record.type, u.id.id = lib.VC_CMD_KEYFRAME_REQUEST, source_id
        case Begin():
            record.type = lib.VC_CMD_NOP
    return record


def encode_dump(command_id: int) -> Any:
    """A dump request."""
    record = ffi.new("struct vc_command *")
    record.id, record.type = command_id, lib.VC_CMD_DUMP
    return record


def decode_event(record: Any) -> Event | None:
    """The value of an event record; None for answers, dumps and unknown types."""
    u = record.u
    if record.type == lib.VC_EVT_BOUND:
        return Bound(u.bound.leg, u.bound.source, u.bound.ssrc)
    if record.type == lib.VC_EVT_BYE:
        return SourceEnded(u.bound.leg, u.bound.source, u.bound.ssrc)
    if record.type == lib.VC_EVT_ACTIVE:
        return SourceActive(u.object.object)
    if record.type == lib.VC_EVT_FEEDBACK:
        f = u.feedback
        return FeedbackReceived(
            f.route,
            f.fraction_lost / 256,
            f.cumulative_lost,
            f.jitter,
            f.highest_seq,
            f.rtt_us or None,
        )
    if record.type == lib.VC_EVT_ESTIMATE:
        return EstimateReceived(u.estimate.leg, u.estimate.bitrate_bps)
    return None
