"""Which interface carries a frame: messages as the kernel writes them, for devices that the kernel
of a test machine may lack (VLAN, bond).
"""

from __future__ import annotations

from typing import Any

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from forwarder.net.links import Link, read_link
from forwarder.net.mirror import Mirror

UP = 0x10043


def message(index: int, name: str, *attrs: tuple[str, Any], flags: int = UP) -> Any:
    """An RTM_NEWLINK message, through its bytes."""
    out = ifinfmsg()
    out["index"], out["ifi_type"], out["flags"] = index, 1, flags
    address = f"02:00:00:00:00:{index:02x}"
    out["attrs"] = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", address), *attrs]
    out.encode()
    back = ifinfmsg(out.data)
    back.decode()
    return back


def info(kind: str, *attrs: tuple[str, Any]) -> tuple[str, Any]:
    return (
        "IFLA_LINKINFO",
        {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": list(attrs)})]},
    )


def bearer(of: Link, links: list[Any], ports: list[str]) -> tuple[str, int | None]:
    mirror = Mirror(ports)
    mirror._links = {link.ifindex: link for link in map(read_link, links)}
    found, vlan = mirror._bearer(of)
    return found.name, vlan


BOND = message(10, "bond0", info("bond", ("IFLA_BOND_ACTIVE_SLAVE", 12)))
ANY = message(10, "bond0", info("bond"))
SLAVES = [message(11, "eth0", ("IFLA_MASTER", 10)), message(12, "eth1", ("IFLA_MASTER", 10))]
VLAN = message(20, "bond0.7", ("IFLA_LINK", 10), info("vlan", ("IFLA_VLAN_ID", 7)))
PLAIN = message(30, "eth9")
PORTS = ["eth0", "eth1"]


def test_a_plain_interface_carries_its_own() -> None:
    assert read_link(PLAIN).active is None and read_link(PLAIN).master is None
    assert bearer(read_link(PLAIN), [PLAIN, *SLAVES], PORTS) == ("eth9", None)


def test_a_vlans_frames_are_its_parents_with_a_tag() -> None:
    vlan = message(21, "eth9.5", ("IFLA_LINK", 30), info("vlan", ("IFLA_VLAN_ID", 5)))
    assert bearer(read_link(vlan), [vlan, PLAIN], ["eth9"]) == ("eth9", 5)


def test_a_bonds_frames_are_those_of_the_slave_that_sends() -> None:
    assert read_link(BOND).active == 12
    assert bearer(read_link(BOND), [BOND, *SLAVES], PORTS) == ("eth1", None)
    other = message(10, "bond0", info("bond", ("IFLA_BOND_ACTIVE_SLAVE", 11)))
    assert read_link(other) != read_link(BOND), "the mirror sees the change"
    assert bearer(read_link(other), [other, *SLAVES], PORTS) == ("eth0", None)


def test_where_each_slave_may_send_one_of_ours_that_is_up_does() -> None:
    down = message(11, "eth0", ("IFLA_MASTER", 10), flags=0x1003)
    assert bearer(read_link(ANY), [ANY, down, SLAVES[1]], PORTS) == ("eth1", None)
    assert bearer(read_link(ANY), [ANY, *SLAVES], ["eth1"]) == ("eth1", None)


def test_a_vlan_on_a_bond() -> None:
    assert bearer(read_link(VLAN), [VLAN, BOND, *SLAVES], PORTS) == ("eth1", 7)


def test_a_bond_without_slaves_is_left_to_the_kernel() -> None:
    assert bearer(read_link(ANY), [ANY], PORTS) == ("bond0", None)
