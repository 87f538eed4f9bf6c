"""A setting: one value of the host with an address that is still right after a reboot.

    text:PATH          a file of /sys or /proc, its text
    choice:PATH        one of several words; the chosen one stands in brackets
    cpus:PATH          a list of processors             mask:PATH   the same, written as a mask
    file:PATH          a whole file of configuration but for the last line break, byte for byte
                       (root.py); (absent) when there is none
    dir:PATH           a directory of a cgroup: present or absent
    controller:PATH    whether a cgroup's subtree_control has cpuset: present or absent
    threads:PATH       of a cpuset (v1): apart when all who are free to run anywhere are in it
    ethtool:NIC:SECTION.NAME                            see net/ethtool.py
    irq:NIC:ROLE:QUEUE the processors of an interrupt: by what it is for, never by its number

Values are texts in one normal form, so that two are equal when they mean the same.  `read`: None
when the host has no such setting; Unreadable when only root may know.  `write`: OSError.
"""

from __future__ import annotations

import errno
import os
import shlex

from forwarder.errors import HostError
from forwarder.host import cpulist, cpuset, vectors
from forwarder.host.root import UNENDED, Host

ABSENT = "(absent)"
PRESENT = "present"
_PART = (
    "for t in $(cat {root}/tasks); do grep -q . /proc/$t/cmdline && grep -q "
    '"^Cpus_allowed_list:.$(cat {root}/cpuset.cpus)$" /proc/$t/status && '
    "echo $t > {rest}/tasks; done; true"
)
_FLAGS = {"channels": "-L", "rings": "-G", "coalesce": "-C", "features": "-K"}
_WORDS = {
    "rx_usecs": "rx-usecs", "tx_usecs": "tx-usecs", "use_adaptive_rx": "adaptive-rx",
    "use_adaptive_tx": "adaptive-tx", "combined_count": "combined", "rx_count": "rx",
    "tx_count": "tx", "rx-gro-hw": "rx-gro-hw", "rx-lro": "lro", "rx-ntuple-filter": "ntuple",
    "rx-vlan-hw-parse": "rxvlan",
}  # fmt: skip


def split(key: str) -> tuple[str, str]:
    kind, _, rest = key.partition(":")
    return kind, rest


def nic_of(key: str) -> str:
    """The interface that a setting belongs to; empty: none."""
    kind, rest = split(key)
    if kind in ("ethtool", "irq"):
        return rest.partition(":")[0]
    prefix = "/sys/class/net/"
    return rest.removeprefix(prefix).partition("/")[0] if rest.startswith(prefix) else ""


def read(host: Host, key: str) -> str | None:
    """The value in its normal form."""
    kind, rest = split(key)
    if kind == "ethtool":
        return _read_ethtool(host, rest)
    if kind == "irq":
        number = vectors.number(host, *_irq(rest))
        if number is None:
            return None
        text = host.read(_affinity(number))
        return None if text is None else _cpus(_affinity(number), text)
    if kind == "dir":
        return PRESENT if host.path(rest).is_dir() else ABSENT
    if kind == "threads":
        return cpuset.apart(host)
    if kind == "file":
        return _file(host.read_file(rest))
    text = host.read(rest)
    if text is None:
        return None
    if kind == "controller":
        return PRESENT if "cpuset" in text.split() else ABSENT
    if kind == "choice":
        return text.partition("[")[2].partition("]")[0] or text
    if kind == "cpus":
        return _cpus(rest, text)
    if kind == "mask":
        return _mask(rest, text)
    return " ".join(text.split())


def write(host: Host, key: str, value: str) -> None:
    """Sets it.  OSError with the kernel's reason; ENODEV: the NIC or its interrupt is gone."""
    kind, rest = split(key)
    if kind == "ethtool":
        _write_ethtool(host, rest, value)
    elif kind == "irq":
        number = vectors.number(host, *_irq(rest))
        if number is None:
            raise OSError(errno.ENODEV, f"no such interrupt: {rest}")
        host.write(_affinity(number), value)
    elif kind == "dir":
        (host.make_directory if value == PRESENT else host.remove_directory)(rest)
    elif kind == "controller":
        host.write(rest, _controllers(host, rest, value == PRESENT))
    elif kind == "threads":
        cpuset.part(host)
    elif kind == "file":
        whole = value.removesuffix(UNENDED) if value.endswith(UNENDED) else f"{value}\n"
        host.write_file(rest, None if value == ABSENT else whole)
    elif kind == "mask":
        host.write(rest, cpulist.show_mask(cpulist.parse(value)))
    else:
        host.write(rest, value)


def shell(host: Host, key: str, value: str) -> str:
    """The line that does the same by hand."""
    kind, rest = split(key)
    if kind == "ethtool":
        return _shell_ethtool(rest, value)
    if kind == "irq":
        number = vectors.number(host, *_irq(rest))
        return f"echo {value} > {_affinity(number if number is not None else -1)}"
    if kind == "dir":
        return f"{'mkdir' if value == PRESENT else 'rmdir'} {rest}"
    if kind == "controller":
        return f"echo {'+' if value == PRESENT else '-'}cpuset > {rest}"
    if kind == "threads":
        return _PART.format(root=cpuset.V1_ROOT, rest=rest)
    if kind == "file":
        if value == ABSENT:
            return f"rm -f {rest}"
        lines = " ".join(_word(line) for line in value.split("\n"))
        folder = os.path.dirname(rest)
        return f"mkdir -p {folder} && printf '%s\\n' {lines} > {rest}"
    if rest.startswith("/proc/sys/"):
        name = rest.removeprefix("/proc/sys/").replace("/", ".")
        return f"sysctl -w {name}={shlex.quote(value)}"
    shown = cpulist.show_mask(cpulist.parse(value)) if kind == "mask" else value
    return f"echo {shlex.quote(shown)} > {shlex.quote(rest)}"


# ---- the kinds -------------------------------------------------------------------------------


def _file(text: str | None) -> str:
    if text is None:
        return ABSENT
    return text[:-1] if text.endswith("\n") else f"{text}{UNENDED}"


def _word(line: str) -> str:
    """One of the shell that can be printed and pasted; bytes that are no UTF-8 in octal."""
    if line.isascii() or not any("\udc80" <= char <= "\udcff" for char in line):
        return shlex.quote(line)
    plain = line.replace("\\", "\\\\").replace("%", "%%").replace("'", "'\\''")
    raw = plain.encode(errors="surrogateescape")
    octal = "".join(chr(byte) if byte < 0x80 else f"\\{byte:03o}" for byte in raw)
    return f"\"$(printf '{octal}')\""


def _controllers(host: Host, file: str, wanted: bool) -> str:
    """What is written; in a capture, which has no kernel, what is there then."""
    if host.live:
        return "+cpuset" if wanted else "-cpuset"
    others = [word for word in (host.read(file) or "").split() if word != "cpuset"]
    return " ".join(["cpuset", *others] if wanted else others)


def _cpus(place: str, text: str) -> str:
    try:
        return cpulist.show(cpulist.parse(text))
    except ValueError:
        raise HostError(f"{place}: not a list of processors: {text[:40]!r}") from None


def _mask(place: str, text: str) -> str:
    try:
        return cpulist.show(cpulist.parse_mask(text))
    except ValueError:
        raise HostError(f"{place}: not a mask of processors: {text[:40]!r}") from None


def _irq(rest: str) -> tuple[str, str, str]:
    nic, role, queue = rest.split(":")
    return nic, role, queue


def _affinity(number: int) -> str:
    return f"/proc/irq/{number}/smp_affinity_list"


def _ethtool(rest: str) -> tuple[str, str, str]:
    nic, _, what = rest.rpartition(":")
    section, _, name = what.partition(".")
    return nic, section, name


def _read_ethtool(host: Host, rest: str) -> str | None:
    nic, section, name = _ethtool(rest)
    try:
        part = host.ethtool_section(nic, section)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            return None
        raise HostError(f"{nic}: ethtool: {error.strerror}") from error
    if section == "rules":
        return None if part is None else str(part.get(name, "none"))
    if part is None or name not in part:
        return None
    if section == "features":
        return "on" if part[name]["on"] else "off"
    return show_table(part["table"]) if section == "rss" else str(part[name])


def show_table(table: list[int]) -> str:
    """`equal 4`, or queue for queue."""
    count = max(table, default=0) + 1
    equal = all(queue == at % count for at, queue in enumerate(table))
    return f"equal {count}" if equal else " ".join(map(str, table))


def _write_ethtool(host: Host, rest: str, value: str) -> None:
    nic, section, name = _ethtool(rest)
    if section == "rss" and value.startswith("equal "):
        size = len((host.ethtool_section(nic, "rss") or {}).get("table", []))
        if not size:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        count = int(value.split()[1])
        value = " ".join(str(at % count) for at in range(size))
    host.nics.set(nic, section, name, value)


def _shell_ethtool(rest: str, value: str) -> str:
    plain, section, name = _ethtool(rest)
    nic = shlex.quote(plain)  # the kernel allows `;` and `$` in a name
    if section in _FLAGS:
        shown = {"0": "off", "1": "on"}.get(value, value) if "adaptive" in name else value
        return f"ethtool {_FLAGS[section]} {nic} {_WORDS.get(name, name)} {shown}"
    if section == "rss":
        equal = value.startswith("equal ")
        return f"ethtool -X {nic} {value}" if equal else f"ethtool -X {nic} # {value}"
    if section == "hash":
        return f"ethtool -N {nic} rx-flow-hash {name} {value}"
    if section == "napi":
        return _shell_napi(plain, name, value)
    if value == "none":
        return f"ethtool -N {nic} delete N  # N: the rule of UDP port {name} in `ethtool -n {nic}`"
    return f"ethtool -N {nic} flow-type udp4 dst-port {name} action {value}"


def _shell_napi(nic: str, name: str, value: str) -> str:
    """By the kernel's own tool (tools/net/ynl): ethtool and ip have no words for it."""
    queue, _, what = name.partition(".")
    index = f"$(cat {shlex.quote(f'/sys/class/net/{nic}/ifindex')})"
    ask = f"ynl --family netdev --output-json --dump queue-get --json '{{\"ifindex\": '{index}'}}'"
    pick = f'jq \'.[] | select(.type == "rx" and .id == {queue}) | .["napi-id"]\''
    pair = f'"{what.replace("_", "-")}": {value}'
    return f"ynl --family netdev --do napi-set --json '{{\"id\": '$({ask} | {pick})', {pair}}}'"
