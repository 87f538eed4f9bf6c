"""Roles of a participant."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """host and active may publish; passive and backstage may not; backstage is not shown."""

    HOST = "host"
    ACTIVE = "active"
    PASSIVE = "passive"
    BACKSTAGE = "backstage"

    @property
    def may_publish(self) -> bool:
        return self in (Role.HOST, Role.ACTIVE)
