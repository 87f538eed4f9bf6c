"""Where workers run, and which serve which interface, on the fixtures of hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from host_kit import FIXTURES, XEON, Tuned, copied, settings

from forwarder.config import load
from forwarder.dataplane.setup import Interface
from forwarder.host.root import Host
from forwarder.supervisor import placing

NICS = ("ens1f0", "ens2f0np0")  # on node 0 and on node 1


def placed(workers: int, cpus: tuple[int, ...], nics: tuple[str, ...] = NICS, **more: Any):
    """Shares as (first worker, workers) of each interface, and the processors in order."""
    config = load(
        None,
        {
            "network.interfaces": nics,
            "dataplane.workers": workers,
            "dataplane.cpus": cpus,
            **{f"network.{key}": value for key, value in more.items()},
        },
    )
    items = tuple(Interface(name, at + 2, at * 64) for at, name in enumerate(nics))
    found = placing.place(config, items, Host(FIXTURES / XEON))
    made = placing.served(items, found)
    return [(i.worker_first, i.worker_cnt) for i in made], placing.cpus(config, found)


def test_the_plan_of_tune_gives_each_nic_its_own_workers() -> None:
    assert placed(4, (1, 4, 2, 5)) == ([(0, 2), (2, 2)], (1, 2, 4, 5))


def test_workers_that_are_not_pinned_are_shared_evenly() -> None:
    assert placed(4, ()) == ([(0, 2), (2, 2)], ())


def test_one_node_or_one_interface_is_served_by_all() -> None:
    assert placed(2, (1, 2), NICS[:1]) == ([(0, 0)], (1, 2))
    assert placed(2, (1, 2), numa_nodes=(3, 3)) == ([(0, 0), (0, 0)], (1, 2))
    assert placed(2, (1, 2)) == ([(0, 0), (0, 0)], (1, 2)), "no core is on node 1"


def test_what_the_configuration_says_of_the_nodes_counts() -> None:
    assert placed(2, (), numa_nodes=(7, 3)) == ([(0, 1), (1, 1)], ())
    assert placed(2, (5, 1), numa_nodes=(1, 0)) == ([(0, 1), (1, 1)], (5, 1))


def test_workers_run_on_the_cores_that_tune_keeps_for_them(tmp_path: Path) -> None:
    root = copied(XEON, tmp_path)
    tuned = Tuned(root)
    kept = tuned.survey().site.layout.cpus
    count = len(kept)
    assert count > 1

    def pinned(**more: object) -> tuple[int, ...]:
        config = settings(**{"dataplane_workers": count, **more})
        return placing.pinned(config, Host(root)).dataplane.cpus

    assert pinned() == ()
    tuned.apply("sysctls")
    assert pinned() == ()  # no core is kept for anybody yet
    tuned.apply("isolation")
    assert pinned() == kept
    own = tuple(reversed(range(count)))
    assert pinned(dataplane_cpus=own) == own  # the operator's word
    assert pinned(dataplane_workers=count + 1) == ()  # another plan than the one applied
    tuned.journal.forget()
    assert pinned() == ()  # reverted
