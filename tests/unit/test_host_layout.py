"""Which core does what: on small hosts made of values, and on the fixtures."""

from __future__ import annotations

import pytest
from host_kit import EPYC, FIXTURES, XEON, Tuned, settings

from forwarder.errors import HostError
from forwarder.host import cpulist, layout
from forwarder.host.facts import Cpu, Facts, Nic


def host(nodes: int, cores: int, threads: int = 1) -> Facts:
    total = nodes * cores
    cpus = [
        Cpu(c + t * total, c // cores, tuple(c + s * total for s in range(threads)), (), "")
        for t in range(threads)
        for c in range(total)
    ]
    homes = {n: tuple(c.number for c in cpus if c.node == n) for n in range(nodes)}
    return Facts("6.12.0", "", tuple(cpus), homes, "on", (), (), "v2", True, {})


def nic(name: str = "eth0", node: int = 0, most: int = 8) -> Nic:
    return Nic(name, "physical", "igb", node, True, 1500, 1, most, "", (), (), {})


@pytest.mark.parametrize(
    ("facts", "nics", "more", "workers", "house"),
    [
        (host(1, 2), [nic(most=1)], {}, (1,), (0,)),  # core 1 works, core 0 keeps house
        (host(1, 2), [], {}, (1,), (0,)),
        (host(1, 1), [nic()], {}, (0,), (0,)),  # never empty
        (host(1, 1, 2), [nic()], {}, (1,), (0,)),  # two threads of one core
        (host(1, 4), [nic()], {}, (1, 2, 3), (0,)),
        (host(1, 4), [nic(most=2)], {}, (1, 2), (0, 3)),  # a worker for each queue
        (host(1, 8), [nic()], {}, (1, 2, 3, 4, 5, 6), (0, 7)),
        (host(2, 2), [nic(node=1)], {}, (2, 3), (0, 1)),  # on the NIC's node, house elsewhere
        (host(2, 2), [nic(node=0)], {"count": 2}, (1, 0), (2, 3)),
        (host(2, 2), [nic("a", 0), nic("b", 1)], {}, (1, 2), (0, 3)),  # one worker a node
        (host(2, 2), [nic("a", 0), nic("b", 1)], {"count": 2}, (1, 2), (0, 3)),
        (host(1, 4), [nic()], {"pinned": (2, 3)}, (2, 3), (0, 1)),
        (host(1, 4), [nic()], {"housekeeping": (0, 1)}, (2, 3), (0, 1)),
        (host(1, 64), [nic(most=64)], {}, tuple(range(1, 17)), (0, *range(17, 64))),
        (host(1, 2, 2), [nic(node=-1)], {}, (1,), (0, 2)),  # the sibling of 1 is 3: idle
    ],
)
def test_cores(facts, nics, more, workers, house):
    found = layout.choose(facts, nics, **more)
    assert found.cpus == workers
    assert found.housekeeping == house
    assert set(found.supervisor) <= set(house) and found.supervisor
    assert found.why


@pytest.mark.parametrize("nodes", [1, 2, 4])
@pytest.mark.parametrize("cores", [1, 2, 3, 8, 24])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 3, 16])
def test_nobody_is_two_things_and_somebody_works(nodes, cores, threads, count):
    facts = host(nodes, cores, threads)
    for nics in ([], [nic()], [nic("a", 0), nic("b", nodes - 1)]):
        found = layout.choose(facts, nics, count=count)
        assert found.workers and found.housekeeping
        assert len(set(found.cpus)) == len(found.cpus) <= 16
        if len(facts.cpus) > 1:
            assert not set(found.cpus) & set(found.housekeeping)
        assert not set(found.idle) & set(found.housekeeping)
        for worker in found.workers:
            assert facts.cpu(worker.cpu).node == worker.node


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"pinned": (7,)}, "dataplane.cpus names core 7, which this host does not have"),
        ({"housekeeping": (9,)}, "tune.housekeeping names core 9"),
        ({"pinned": (1,), "housekeeping": (1,)}, "works or keeps house"),
    ],
)
def test_cores_that_do_not_exist(more, words):
    with pytest.raises(HostError, match=words):
        layout.choose(host(1, 4), [nic()], **more)


def test_nics_of_one_node_share_its_workers():
    """A worker has a queue on each of them, so the NIC with the fewest decides."""
    found = layout.choose(host(2, 4), [nic("a", 1, 4), nic("b", 1, 2)])
    assert found.cpus == (4, 5)
    assert found.of("a") == found.of("b") == found.workers


@pytest.mark.parametrize(
    ("homes", "count", "nodes", "order", "shares"),
    [
        ({"a": 0, "b": 0}, 3, (), (0, 1, 2), {"a": (0, 3), "b": (0, 3)}),
        ({"a": 0, "b": 0}, 2, (1, 1), (0, 1), {"a": (0, 2), "b": (0, 2)}),
        ({"a": 0, "b": 1}, 4, (), (0, 1, 2, 3), {"a": (0, 2), "b": (2, 2)}),
        ({"a": 0, "b": 1}, 3, (), (0, 1, 2), {"a": (0, 2), "b": (2, 1)}),
        ({"a": 0, "b": 1}, 4, (0, 1, 0, 1), (0, 2, 1, 3), {"a": (0, 2), "b": (2, 2)}),
        ({"a": 1, "b": 0, "c": 1}, 3, (0, 1, 0), (1, 0, 2), dict(a=(0, 1), b=(1, 2), c=(0, 1))),
    ],
)
def test_each_worker_serves_its_node(homes, count, nodes, order, shares):
    found = layout.spread(homes, count, nodes)
    assert (found.order, found.shares, found.why) == (order, shares, "")
    assert found.split == (len(set(homes.values())) > 1)


@pytest.mark.parametrize(("count", "nodes"), [(1, ()), (2, (0, 0)), (1, (1,))])
def test_a_node_without_workers_is_served_by_all(count, nodes):
    found = layout.spread({"a": 0, "b": 1}, count, nodes)
    assert set(found.shares.values()) == {(0, count)} and not found.split
    assert "no worker for NUMA node" in found.why


def test_a_worker_that_would_serve_none():
    with pytest.raises(HostError, match="node 2, where none of the interfaces is"):
        layout.spread({"a": 0, "b": 1}, 3, (0, 1, 2))


def test_two_sockets():
    survey = Tuned(FIXTURES / XEON).survey()
    workers = survey.site.layout.workers
    assert [(w.cpu, w.node, w.nic) for w in workers] == [
        (1, 0, "ens1f0"), (4, 1, "ens2f0np0"), (2, 0, "ens1f0"), (5, 1, "ens2f0np0"),
        (3, 0, "ens1f0"), (6, 1, "ens2f0np0"),
    ]  # fmt: skip
    assert survey.site.layout.idle == (9, 10, 11, 12, 13, 14)
    assert [w.cpu for w in survey.site.layout.of("ens1f0")] == [1, 2, 3]
    assert [w.cpu for w in survey.site.layout.of("ens2f0np0")] == [4, 5, 6]


def test_the_configured_count_is_taken():
    survey = Tuned(FIXTURES / EPYC).survey(conf=settings(dataplane_workers=2), given=True)
    assert survey.site.layout.cpus == (4, 5)


def test_more_workers_than_cores_is_said():
    found = layout.choose(host(1, 4), [nic()], count=9)
    assert found.cpus == (1, 2, 3)
    assert any("3 of the 9 workers" in why for why in found.why)


@pytest.mark.parametrize(
    ("text", "cpus", "mask"),
    [
        ("", (), "0"),
        ("0", (0,), "1"),
        ("0,2-5", (0, 2, 3, 4, 5), "3d"),
        ("31-32", (31, 32), "1,80000000"),
        ("64", (64,), "1,00000000,00000000"),
    ],
)
def test_lists_and_masks(text, cpus, mask):
    assert cpulist.parse(text) == cpus
    assert cpulist.show(cpus) == text
    assert cpulist.show_mask(cpus) == mask
    assert cpulist.parse_mask(mask) == cpus


@pytest.mark.parametrize("text", ["x", "3-1", "-1", "99999"])
def test_not_a_list(text):
    with pytest.raises(ValueError):
        cpulist.parse(text)
