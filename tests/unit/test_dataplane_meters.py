"""Statistics of many sources at once, out of a segment that no worker serves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("forwarder.dataplane._ring", reason="_ring is not built")
from forwarder.dataplane import setup_record
from forwarder.dataplane.abi import Memory, Segment, make_memfd
from forwarder.dataplane.counters import source_meters, source_stats
from forwarder.dataplane.setup import Local, Setup
from forwarder.dataplane.tally import SourceMeter

SETUP = Setup(workers=1, locals=(Local("127.0.0.1", 0),), sources_max=64)


@pytest.fixture
def segment() -> Iterator[Segment]:
    record = setup_record.encode(SETUP)
    memory = Memory(make_memfd("segment", Segment.size_for(record, 0)))
    made = Segment(memory, 0)
    made.format(record)
    yield made
    memory.close()


def test_rows_are_those_of_single_reads(segment: Segment) -> None:
    header = segment._header
    for source in (0, 7, 63):
        row = segment._at("vc_source_stats", header.source_stats_off, source)
        row.packets, row.bytes, row.last_rx_ns = source + 1, 1 << 40, 5
        row.level, row.level_ns = 20 + source, 6 << 40
    found = source_meters(segment, [63, 0, 7])
    assert found[7] == SourceMeter(8, 1 << 40, 5, 27, 6 << 40)
    assert list(found) == [63, 0, 7]
    for source, meter in found.items():
        whole = source_stats(segment, source)
        assert meter == tuple(getattr(whole, name) for name in SourceMeter._fields)
    assert source_meters(segment, []) == {}


@pytest.mark.parametrize("source", [-1, 64])
def test_ids_out_of_range(segment: Segment, source: int) -> None:
    with pytest.raises(IndexError, match="64"):
        source_meters(segment, [1, source])
