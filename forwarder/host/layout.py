"""Which core does what.  Pure: facts in, cores out, with the sentences that explain them.

Workers run on the node of their NIC, one for each of its queues, on cores whose SMT siblings stay
idle; core 0 keeps house as long as another core can work (the kernel does on it what it cannot do
elsewhere).  NICs of one node share its workers, each of which has a queue on each of them; where
NICs lie on several nodes, no worker serves another node's (spread, which the data plane's set-up
uses too).  Housekeeping (interrupts, kernel threads, everything else) is what remains, and never
empty; nor are the workers: on two cores core 1 works and core 0 keeps house.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forwarder.errors import HostError
from forwarder.host import cpulist
from forwarder.host.facts import Cpu, Facts, Nic

WORKERS_MAX = 16
"""Worker threads of a data plane (VC_WORKERS_MAX)."""
HOUSE_FROM = 4
"""Cores of a node of which one never works, unless the workers' number or their cores are told."""


class WrongCores(HostError):
    """The configuration names cores that cannot be had: the argument is wrong, not the host."""


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
    serving: dict[str, tuple[Worker, ...]]
    """The workers of each NIC."""

    @property
    def cpus(self) -> tuple[int, ...]:
        return tuple(worker.cpu for worker in self.workers)

    def of(self, nic: str) -> tuple[Worker, ...]:
        """The workers of a NIC, in the order of its queues."""
        return self.serving.get(nic, self.workers)

    def house_on(self, node: int, facts: Facts) -> tuple[int, ...]:
        """Housekeeping cores of a node; where there are none, all of them."""
        near = tuple(c for c in self.housekeeping if c in facts.nodes.get(node, ()))
        return near or self.housekeeping


@dataclass(frozen=True)
class Spread:
    """Which workers serve which NIC.  `order`: the workers as they are to be numbered, by their
    places in what was given; `shares`: NIC -> its first worker and how many; `why`: empty, or why
    workers serve NICs of another node as well."""

    order: tuple[int, ...]
    shares: dict[str, tuple[int, int]]
    why: str = ""

    @property
    def split(self) -> bool:
        return len(set(self.shares.values())) > 1


def spread(homes: Mapping[str, int], count: int, nodes: Sequence[int] = ()) -> Spread:
    """Shares `count` workers among NICs on their nodes (`homes`).

    A node gets the workers whose cores lie on it (`nodes`: of each worker's core), or an even share
    when they are not pinned.  WrongCores: a worker would serve none of the NICs.
    """
    order = tuple(range(count))
    together = Spread(order, dict.fromkeys(homes, (0, count)))
    groups = list(dict.fromkeys(homes.values()))
    if len(groups) < 2:
        return together
    if nodes:
        members = {group: [w for w in order if nodes[w] == group] for group in groups}
    else:
        ends = [-(-count * at // len(groups)) for at in range(len(groups) + 1)]
        members = {g: list(order[a:b]) for g, a, b in zip(groups, ends, ends[1:], strict=False)}
    bare = [str(group) for group in groups if not members[group]]
    if bare:
        where = "cores" if nodes else "number"
        why = (
            f"no worker for NUMA node {', '.join(bare)} by the {where} of the workers: "
            "each serves the interfaces of all nodes"
        )
        return Spread(order, together.shares, why)
    lost = sorted(set(nodes) - set(groups))
    if lost:
        raise WrongCores(
            f"dataplane.cpus names a core on NUMA node {lost[0]}, where none of the interfaces is: "
            f"a worker there would serve none; take cores of node {' or '.join(map(str, groups))}"
        )
    first, shares = 0, {}
    for group in groups:
        shares.update({n: (first, len(members[group])) for n in homes if homes[n] == group})
        first += len(members[group])
    return Spread(tuple(w for group in groups for w in members[group]), shares)


def home(nic: Nic, facts: Facts) -> int:
    """The node of a NIC; one that does not say, or whose node has no processor (memory alone), is
    on the first that has some."""
    if facts.nodes.get(nic.node):
        return nic.node
    return min((node for node, cpus in facts.nodes.items() if cpus), default=min(facts.nodes))


def choose(
    facts: Facts,
    nics: Sequence[Nic],
    *,
    count: int = 0,
    pinned: Sequence[int] = (),
    housekeeping: Sequence[int] = (),
) -> Layout:
    """`count` workers (0: as many as fit), or those `pinned`; WrongCores: no such cores."""
    online = [cpu.number for cpu in facts.cpus]
    for what, cpus in (("dataplane.cpus", pinned), ("tune.housekeeping", housekeeping)):
        gone = sorted(set(cpus) - set(online))
        if gone:
            raise WrongCores(
                f"{what} names core {cpulist.show(gone)}, which this host does not have: "
                f"it has {cpulist.show(online)}"
            )
    both = sorted(set(pinned) & set(housekeeping))
    if both and len(online) > 1:
        raise WrongCores(
            f"core {cpulist.show(both)} is in dataplane.cpus and in tune.housekeeping: "
            "a core works or keeps house"
        )
    why: list[str] = []
    if pinned:
        workers = _pinned(facts, nics, pinned)
        why.append(f"workers on {cpulist.show(pinned)}: dataplane.cpus pins them")
    else:
        workers = _pick(facts, nics, count, set(housekeeping), why)
    homes = {nic.name: home(nic, facts) for nic in nics}
    return _finish(facts, workers, housekeeping, why, homes)


def _pinned(facts: Facts, nics: Sequence[Nic], pinned: Sequence[int]) -> list[Worker]:
    found = []
    for at, number in enumerate(pinned):
        cpu = facts.cpu(number)
        node = cpu.node if cpu else 0
        near = [nic for nic in nics if home(nic, facts) == node] or list(nics)
        found.append(Worker(number, node, near[at % len(near)].name if near else ""))
    return found


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
    homes = _homes(facts, nics) or [("", min(facts.nodes), 1)]
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
            if len(usable) > (0 if count else _house(facts, node, spread)):
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
            named = [nic.name for nic in nics if home(nic, facts) == node]
            why.append(
                f"{', '.join(named)} (node {node}, up to {queues} queues): "
                f"core {cpulist.show(mine)}, a worker for each queue"
            )
    return workers


def _homes(facts: Facts, nics: Sequence[Nic]) -> list[tuple[str, int, int]]:
    """A NIC of each node that has some, its node, and the queues that all of the node's have."""
    found: dict[int, tuple[str, int, int]] = {}
    for nic in nics:
        node = home(nic, facts)
        name, _, queues = found.get(node, (nic.name, node, nic.queues_max))
        found[node] = (name, node, min(queues, nic.queues_max))
    return list(found.values())


def _house(facts: Facts, node: int, spread: bool) -> int:
    """Cores of a node with NICs that keep house besides the boot core: a quarter of eight up.

    Of four up one stays in any case, also where another node keeps house (`spread`): the kernel has
    threads for each node (kswapd), and the NIC's interrupts are best near it."""
    cores = {cpu.siblings for cpu in facts.cpus if cpu.node == node}
    boot = min(cpu.number for cpu in facts.cpus)
    own = spread or not any(boot in siblings for siblings in cores)
    least = 1 if own and len(cores) >= HOUSE_FROM else 0
    return max(least, len(cores) // 4 - 1) if len(cores) >= 8 and not spread else least


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
    facts: Facts,
    workers: list[Worker],
    asked: Sequence[int],
    why: list[str],
    homes: Mapping[str, int],
) -> Layout:
    shared = spread(homes, len(workers), [worker.node for worker in workers])
    why += [shared.why] if shared.why else []
    numbered = [workers[at] for at in shared.order]
    serving = {nic: tuple(numbered[a : a + n]) for nic, (a, n) in shared.shares.items()}
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
    bare = sorted({w.node for w in workers if not house & set(facts.nodes.get(w.node, ()))})
    if bare and len(house) < len(online):
        why.append(
            f"no core of node {cpulist.show(bare)} keeps house: what the kernel runs for that node "
            "alone may run on its workers' cores"
        )
    nodes = {worker.node for worker in workers}
    near = [c for c in sorted(house) if any(c in facts.nodes.get(n, ()) for n in nodes)]
    supervisor = (near or sorted(house))[-1:]
    why.append(f"supervisor on core {cpulist.show(supervisor)}, beside the data plane's memory")
    return Layout(
        tuple(workers),
        tuple(sorted(house)),
        tuple(supervisor),
        tuple(sorted(idle)),
        tuple(why),
        serving,
    )
