"""Which core does what.  Pure: facts in, cores out, with the sentences that explain them.

Workers run on the node of their NIC, one for each of its queues, on cores whose SMT siblings stay
idle; core 0 keeps house as long as another core can work (the kernel does on it what it cannot do
elsewhere).  Housekeeping (interrupts, kernel threads, everything else) is what remains, and never
empty; nor are the workers: on two cores core 1 works and core 0 keeps house.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.errors import HostError
from forwarder.host import cpulist
from forwarder.host.facts import Cpu, Facts, Nic

WORKERS_MAX = 16
"""Worker threads of a data plane (VC_WORKERS_MAX)."""


@dataclass(frozen=True)
class Worker:
    """A worker's core, its NUMA node, and the NIC whose queues it is there for (empty: none)."""

    cpu: int
    node: int
    nic: str


@dataclass(frozen=True)
class Layout:
    workers: tuple[Worker, ...]
    housekeeping: tuple[int, ...]
    supervisor: tuple[int, ...]
    idle: tuple[int, ...]
    why: tuple[str, ...]

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(worker.cpu for worker in self.workers)

    def of(self, nic: str) -> tuple[Worker, ...]:
        """The workers of a NIC, in the order of its queues: all of them when none is its own."""
        return tuple(w for w in self.workers if w.nic == nic) or self.workers

    def house_on(self, node: int, facts: Facts) -> tuple[int, ...]:
        """Housekeeping cores of a node; where there are none, all of them."""
        near = tuple(c for c in self.housekeeping if c in facts.nodes.get(node, ()))
        return near or self.housekeeping


def choose(
    facts: Facts,
    nics: Sequence[Nic],
    *,
    count: int = 0,
    pinned: Sequence[int] = (),
    housekeeping: Sequence[int] = (),
) -> Layout:
    """`count` workers (0: as many as fit), or those `pinned`; HostError: no such cores."""
    online = [cpu.number for cpu in facts.cpus]
    for what, cpus in (("dataplane.cpus", pinned), ("tune.housekeeping", housekeeping)):
        gone = sorted(set(cpus) - set(online))
        if gone:
            raise HostError(
                f"{what} names core {cpulist.show(gone)}, which this host does not have: "
                f"it has {cpulist.show(online)}"
            )
    both = sorted(set(pinned) & set(housekeeping))
    if both and len(online) > 1:
        raise HostError(
            f"core {cpulist.show(both)} is in dataplane.cpus and in tune.housekeeping: "
            "a core works or keeps house"
        )
    why: list[str] = []
    if pinned:
        workers = _pinned(facts, nics, pinned)
        why.append(f"workers on {cpulist.show(pinned)}: dataplane.cpus pins them")
    else:
        workers = _pick(facts, nics, count, set(housekeeping), why)
    return _finish(facts, workers, housekeeping, why)


def _pinned(facts: Facts, nics: Sequence[Nic], pinned: Sequence[int]) -> list[Worker]:
    found = []
    for at, number in enumerate(pinned):
        cpu = facts.cpu(number)
        node = cpu.node if cpu else 0
        near = [nic for nic in nics if _node(nic, facts) == node] or list(nics)
        found.append(Worker(number, node, near[at % len(near)].name if near else ""))
    return found


def _node(nic: Nic, facts: Facts) -> int:
    return nic.node if nic.node in facts.nodes else min(facts.nodes)


def _first_threads(facts: Facts, node: int, taken: set[int]) -> list[Cpu]:
    """One processor for each core of the node that nobody uses yet; the boot core's last."""
    cores: dict[tuple[int, ...], Cpu] = {}
    for cpu in facts.cpus:
        if cpu.node == node and not taken & set(cpu.siblings):
            cores.setdefault(cpu.siblings, cpu)
    boot = min(cpu.number for cpu in facts.cpus)
    return sorted(cores.values(), key=lambda cpu: (boot in cpu.siblings, cpu.number))


def _pick(
    facts: Facts, nics: Sequence[Nic], count: int, reserved: set[int], why: list[str]
) -> list[Worker]:
    boot = min(cpu.number for cpu in facts.cpus)
    homes = [(nic.name, _node(nic, facts), nic.queues_max) for nic in nics]
    homes = homes or [("", min(facts.nodes), 1)]
    spread = len(facts.nodes) > 1 and any(
        cpus and node not in {node for _, node, _ in homes} for node, cpus in facts.nodes.items()
    )
    most = min(count or WORKERS_MAX, WORKERS_MAX)
    workers: list[Worker] = []
    left = {name: queues for name, _, queues in homes}
    while len(workers) < most:
        taken = {c for w in workers for c in _siblings(facts, w.cpu)} | reserved
        round_: list[Worker] = []
        hungry = [(name, node) for name, node, _ in homes if left[name] > 0]
        for name, node in hungry:
            # The boot core works only where another node keeps house.
            free = _first_threads(facts, node, taken)
            usable = [c for c in free if spread or boot not in c.siblings]
            if len(usable) > (0 if spread or count else _house(facts, node)):
                round_.append(Worker(usable[0].number, node, name))
                taken |= set(usable[0].siblings)
        # NICs get equally many, unless a number was asked for.
        if not round_ or (len(round_) < len(hungry) and workers and not count):
            break
        for worker in round_[: most - len(workers)]:
            workers.append(worker)
            left[worker.nic] -= 1
    if not workers:
        workers = [_last_resort(facts, homes[0], reserved)]
        why.append(f"one worker, on core {workers[0].cpu}: there is no free core for more")
    elif count > len(workers):
        why.append(
            f"{len(workers)} of the {count} workers asked for: that many queues and free cores "
            "are on the nodes of the NICs"
        )
    for name, node, queues in homes:
        mine = [w.cpu for w in workers if w.nic == name]
        if name and mine:
            why.append(
                f"{name} (node {node}, up to {queues} queues): core {cpulist.show(mine)}, "
                "a worker for each queue"
            )
    return workers


def _house(facts: Facts, node: int) -> int:
    """Cores of a node with NICs that keep house besides the boot core: a quarter of eight up."""
    cores = len({cpu.siblings for cpu in facts.cpus if cpu.node == node})
    return max(0, cores // 4 - 1) if cores >= 8 else 0


def _siblings(facts: Facts, number: int) -> tuple[int, ...]:
    cpu = facts.cpu(number)
    return cpu.siblings if cpu else (number,)


def _last_resort(facts: Facts, home: tuple[str, int, int], reserved: set[int]) -> Worker:
    """The highest processor that is not the only one: another thread of the boot core at worst."""
    free = [cpu for cpu in facts.cpus if cpu.number not in reserved] or list(facts.cpus)
    near = [cpu for cpu in free if cpu.node == home[1]]
    boot = min(cpu.number for cpu in facts.cpus)
    best = max(near or free, key=lambda cpu: (cpu.number != boot, cpu.number))
    return Worker(best.number, best.node, home[0])


def _finish(
    facts: Facts, workers: list[Worker], asked: Sequence[int], why: list[str]
) -> Layout:  # fmt: skip
    working = {worker.cpu for worker in workers}
    online = {cpu.number for cpu in facts.cpus}
    idle = {c for cpu in working for c in _siblings(facts, cpu)} & online - working - set(asked)
    if not online - working - idle:
        idle = set()
    house = set(asked) or online - working - idle
    if not house:
        house = {min(online)}
        why.append(f"core {min(online)} keeps house as well: there is no other core")
    if idle:
        why.append(f"core {cpulist.show(idle)} stays idle: it shares a core with a worker")
    why.append(f"housekeeping on core {cpulist.show(house)}")
    nodes = {worker.node for worker in workers}
    near = [c for c in sorted(house) if any(c in facts.nodes.get(n, ()) for n in nodes)]
    supervisor = (near or sorted(house))[-1:]
    why.append(f"supervisor on core {cpulist.show(supervisor)}, beside the data plane's memory")
    return Layout(
        tuple(workers), tuple(sorted(house)), tuple(supervisor), tuple(sorted(idle)), tuple(why)
    )
