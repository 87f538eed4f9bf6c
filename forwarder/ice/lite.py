"""ICE-lite (RFC 8445 section 2.5) for every leg of the node, sans-IO.

Rule 1: only an authenticated check (right ufrag, MESSAGE-INTEGRITY under the leg's password)
        adds a 5-tuple, and only one with USE-CANDIDATE moves the nomination: a client that
        checks several pairs for ever does not flap.
Rule 2: the answer leaves from the address that the check came to.
Rule 3: what is not authentic is counted by reason and not answered: the node is no reflector.
        (The exception is a role conflict, which is authenticated first.)
Rule 4: no clock, no sockets: `now` is an argument, answers are returned.

Limits: TUPLES_MAX validated 5-tuples a leg; the oldest that is not nominated makes room.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aioice import stun

from forwarder.ids import ParticipantId
from forwarder.table import Tuple5

TUPLES_MAX = 4
CONSENT_S = 30.0  # RFC 7675 section 5.1: consent expires after 30 s without a valid check
MESSAGE_MAX = 1280  # bytes of a STUN message that is looked at
ROLE_CONFLICT = (487, "Role Conflict")  # RFC 8445 section 7.3.1.1


@dataclass(frozen=True)
class TuplesChanged:
    """The validated 5-tuples of a participant's leg, or the nominated one, changed."""

    participant_id: ParticipantId
    tuples: tuple[Tuple5, ...]
    nominated: int | None  # index into tuples
    added: tuple[Tuple5, ...]
    removed: tuple[Tuple5, ...]


@dataclass
class _Agent:
    participant_id: ParticipantId
    ufrag: str
    password: bytes
    last_check: dict[Tuple5, float] = field(default_factory=dict)  # in order of validation
    nominated: Tuple5 | None = None


class IceLite:
    """Answers binding requests for all legs; knows each by its ufrag."""

    def __init__(self) -> None:
        self._by_ufrag: dict[str, _Agent] = {}
        self._by_participant: dict[ParticipantId, _Agent] = {}
        self._holders: dict[Tuple5, _Agent] = {}
        self.counters: Counter[str] = Counter()

    def add(
        self,
        participant_id: ParticipantId,
        ufrag: str,
        password: str,
        *,
        tuples: Sequence[Tuple5] = (),
        nominated: int | None = None,
        now: float = 0.0,
    ) -> None:
        """Takes up a leg; after a restart with the 5-tuples it had, whose consent begins anew."""
        agent = _Agent(participant_id, ufrag, password.encode())
        self._by_ufrag[ufrag] = agent
        self._by_participant[participant_id] = agent
        for item in tuples:
            agent.last_check[item] = now
            self._holders[item] = agent
        if nominated is not None:
            agent.nominated = tuples[nominated]

    def remove(self, participant_id: ParticipantId) -> tuple[Tuple5, ...]:
        """Forgets a leg; the 5-tuples that it had."""
        agent = self._by_participant.pop(participant_id, None)
        if agent is None:
            return ()
        del self._by_ufrag[agent.ufrag]
        for item in agent.last_check:
            self._holders.pop(item, None)
        return tuple(agent.last_check)

    def restart(self, participant_id: ParticipantId, ufrag: str, password: str, now: float) -> None:
        """New credentials (RFC 8445 section 9): the old ones end, addresses stay until new checks
        nominate another; consent to them begins anew."""
        agent = self._by_participant[participant_id]
        del self._by_ufrag[agent.ufrag]
        agent.ufrag, agent.password = ufrag, password.encode()
        agent.last_check = dict.fromkeys(agent.last_check, now)
        self._by_ufrag[ufrag] = agent

    def holder(self, at: Tuple5) -> ParticipantId | None:
        """Whose leg an authenticated check validated this 5-tuple for."""
        agent = self._holders.get(at)
        return agent.participant_id if agent is not None else None

    def receive(
        self, data: bytes, at: Tuple5, now: float
    ) -> tuple[bytes | None, list[TuplesChanged]]:
        """A datagram whose first byte is 0-3.  Returns the answer, if any, and what changed."""
        message = self._parse(data)
        if message is None:
            return None, []
        agent = self._authenticate(message)
        if agent is None:
            return None, []
        if "ICE-CONTROLLED" in message.attributes:
            # We are lite and so always controlled (RFC 8445 section 7.3.1.1).
            self.counters["role_conflict"] += 1
            return self._answer(message, agent, at, error=ROLE_CONFLICT), []
        self.counters["answered"] += 1
        changes = self._validate(agent, at, "USE-CANDIDATE" in message.attributes, now)
        return self._answer(message, agent, at), changes

    def _parse(self, data: bytes) -> stun.Message | None:
        if len(data) > MESSAGE_MAX:
            self.counters["oversize"] += 1
            return None
        try:
            message = stun.parse_message(data)
        except (ValueError, IndexError, KeyError, OverflowError, struct.error):
            self.counters["malformed"] += 1
            return None
        if "FINGERPRINT" not in message.attributes:  # RFC 8445 section 7.1.4 demands it
            self.counters["no_fingerprint"] += 1
            return None
        if message.message_method != stun.Method.BINDING:
            self.counters["not_binding"] += 1
            return None
        if message.message_class != stun.Class.REQUEST:
            # Indications keep NAT bindings open and need no answer (RFC 8445 section 11).
            self.counters["not_request"] += 1
            return None
        return message

    def _authenticate(self, message: stun.Message) -> _Agent | None:
        username = message.attributes.get("USERNAME")
        if not username:
            self.counters["no_username"] += 1
            return None
        agent = self._by_ufrag.get(username.split(":", 1)[0])
        if agent is None:
            self.counters["unknown_ufrag"] += 1
            return None
        if "MESSAGE-INTEGRITY" not in message.attributes or not message.check_message_integrity(
            agent.password
        ):
            self.counters["bad_integrity"] += 1
            return None
        return agent

    def _answer(
        self,
        request: stun.Message,
        agent: _Agent,
        at: Tuple5,
        error: tuple[int, str] | None = None,
    ) -> bytes:
        answer = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.ERROR if error else stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        if error:
            answer.attributes["ERROR-CODE"] = error
        else:
            answer.attributes["XOR-MAPPED-ADDRESS"] = (at.remote_ip, at.remote_port)
        answer.add_message_integrity(agent.password)
        return bytes(answer)

    def _validate(
        self, agent: _Agent, at: Tuple5, nominate: bool, now: float
    ) -> list[TuplesChanged]:
        changes: list[TuplesChanged] = []
        holder = self._holders.get(at)
        if holder is not None and holder is not agent:
            # A NAT gave the port to somebody else: the old leg no longer lives there.
            del holder.last_check[at]
            if holder.nominated == at:
                holder.nominated = None
            changes.append(self._change(holder, removed=(at,)))
        added: tuple[Tuple5, ...] = ()
        removed: tuple[Tuple5, ...] = ()
        if at not in agent.last_check:
            if len(agent.last_check) >= TUPLES_MAX:
                removed = (self._evict(agent),)
            added = (at,)
        agent.last_check[at] = now
        self._holders[at] = agent
        moved = (nominate or agent.nominated is None) and agent.nominated != at
        # The first validated pair is used at once, so that media need not wait for the nomination.
        if moved:
            agent.nominated = at
        if added or removed or moved:
            changes.append(self._change(agent, added=added, removed=removed))
        return changes

    def _evict(self, agent: _Agent) -> Tuple5:
        victim = min(
            (item for item in agent.last_check if item != agent.nominated),
            key=lambda item: agent.last_check[item],
        )
        del agent.last_check[victim]
        del self._holders[victim]
        self.counters["tuple_evicted"] += 1
        return victim

    def wait_anew(self, now: float) -> None:
        """Consent to every address begins anew: until now no check could be heard."""
        for agent in self._by_participant.values():
            agent.last_check = dict.fromkeys(agent.last_check, now)

    def expire(self, now: float) -> list[TuplesChanged]:
        """Withdraws 5-tuples whose consent ended (RFC 7675); call it about once a second."""
        changes = []
        for agent in self._by_participant.values():
            stale = tuple(
                item for item, last in agent.last_check.items() if now - last >= CONSENT_S
            )
            if not stale:
                continue
            for item in stale:
                del agent.last_check[item]
                self._holders.pop(item, None)
            if agent.nominated in stale:
                # Fall back to the pair that was heard of last, if any is left.
                agent.nominated = max(
                    agent.last_check, key=lambda item: agent.last_check[item], default=None
                )
            self.counters["consent_expired"] += len(stale)
            changes.append(self._change(agent, removed=stale))
        return changes

    @staticmethod
    def _change(
        agent: _Agent, added: Iterable[Tuple5] = (), removed: Iterable[Tuple5] = ()
    ) -> TuplesChanged:
        tuples = tuple(agent.last_check)
        nominated = tuples.index(agent.nominated) if agent.nominated in agent.last_check else None
        return TuplesChanged(agent.participant_id, tuples, nominated, tuple(added), tuple(removed))
