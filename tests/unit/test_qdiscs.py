"""Does the kernel hold what these addresses send until its time?"""

from __future__ import annotations

import pytest

from forwarder.net.links import Address, Link
from forwarder.net.qdiscs import CLSACT, ROOT, judge, why_not_held

LINKS = [Link(3, "eth7", bytes(6), True, True), Link(4, "eth8", bytes(6), True, True)]
ADDRESSES = [Address(3, "192.0.2.1"), Address(4, "2001:db8::1"), Address(4, "192.0.2.2")]
FQ, MQ = [(ROOT, "fq")], [(ROOT, "mq"), (0x10001, "fq"), (0x10002, "fq"), (CLSACT, "clsact")]


@pytest.mark.parametrize(
    ("ips", "found", "why"),
    [
        (["192.0.2.1"], {3: FQ}, ""),
        (["192.0.2.1"], {3: MQ}, ""),
        (["192.0.2.1", "2001:db8:0::1"], {3: FQ, 4: MQ}, ""),
        (["192.0.2.1", "192.0.2.2"], {3: FQ}, "eth8 sends by no discipline, not by fq"),
        (["192.0.2.1"], {3: [(ROOT, "fq_codel")], 4: FQ}, "eth7 sends by fq_codel, not by fq"),
        (["192.0.2.1"], {3: [*MQ, (0x10003, "sfq")]}, "eth7 sends by fq, sfq, not by fq"),
        (["192.0.2.9"], {3: FQ}, "no interface has the address 192.0.2.9"),
    ],
)
def test_judge(ips, found, why):
    assert judge(ips, LINKS, ADDRESSES, found) == why


def test_the_kernel_is_asked():
    assert why_not_held(["127.0.0.1"]).startswith("lo sends by ")
