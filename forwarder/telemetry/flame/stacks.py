"""From a walk by frame pointers to names, with the leaves mended that have none.

Our own C has frame pointers, libraries do not: ipsec-mb's assembly and libc's stubs.  A walk that
starts in them is wrong in one of two ways.  Where the leaf left the register alone, the walk is
right but misses the caller of the leaf.  Where it used the register for something else, the walk
ends in nonsense.  The sampler therefore brings the top of the stack along (`Top`):

- the leaf's caller is a return address into the process's own program (one behind a call);
- from that caller on, frames are linked again: a saved frame pointer that points further up the
  stack, and behind it a return address.

Where the links lead out of what was brought along, the stack is incomplete, and `merge.graft`
hangs it below the way by which complete stacks of the same thread come to its first function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from forwarder.telemetry.flame.elf import STUB
from forwarder.telemetry.flame.symbols import Place, Space

NO_FRAME_POINTER = "[no frame pointer]"
INTERPRETER = ("python3", "libpython3")
STACK_MAX = 8 << 20  # bytes


@dataclass(frozen=True)
class Top:
    """The lowest words of a stack; `sp` is the address of the first."""

    sp: int = 0
    words: Sequence[int] = field(default=())

    def link(self, at: int) -> int | None:
        """Where the frame pointer saved in this word points: an index, maybe past the end."""
        offset = self.words[at] - self.sp
        if offset % 8 or not 8 * (at + 2) <= offset < STACK_MAX:
            return None
        return offset // 8


def _returns(space: Space, word: int) -> Place | None:
    """The function that this return address leads to, if it is one of the program's own."""
    place = space.place(word)
    if place is None or not place.follows_call or place.module != space.main:
        return None
    return space.place(word - 1)  # a call may be the last instruction of its function


def _callers(space: Space, top: Top) -> tuple[list[Place], bool]:
    """The leaf's callers, leaf first, and whether the links end where the program was entered."""
    words = top.words
    first = next((i for i, word in enumerate(words) if _returns(space, word)), None)
    if first is None:
        return [], False
    found = [_returns(space, words[first])]
    at: int | None = next(
        (
            j
            for j in range(first + 1, len(words) - 1)
            if top.link(j) is not None and _returns(space, words[j + 1])
        ),
        None,
    )
    entered = False
    while at is not None and at + 1 < len(words):
        place = _returns(space, words[at + 1])
        if place is None:  # into libc: the program's first function has returned nowhere else
            place, entered = space.place(words[at + 1]), True
        if place is None:
            break
        found.append(place)
        at = None if entered else top.link(at)
    return [place for place in found if place is not None], entered


def _leaf_caller(space: Space, leaf: Place, after: int, top: Top) -> Place | None:
    """The caller that a right walk misses: it lies below the first return address of the walk.

    Stacks are full of old return addresses, so the call before each is read.  One to a function
    of the program is not the call of a leaf in a library.  libc is called by way of a stub,
    ipsec-mb by pointers.  And where the walk itself tells who was called, it is that function."""
    words = list(top.words)
    if after not in words:
        return None
    called = space.place(after)
    wanted = called.calls if called is not None and called.calls != STUB else None
    if wanted is not None:
        return Place(wanted, space.main)
    likely: Place | None = None
    for word in words[: words.index(after)]:
        place, call = _returns(space, word), space.place(word)
        if place is None or call is None or call.calls not in (None, STUB):
            continue
        if (call.calls == STUB) == _is_libc(leaf):
            return place
        likely = likely or place
    return likely


def _is_libc(place: Place) -> bool:
    return place.module.rsplit("/", 1)[-1].startswith("libc.")


def _names(places: Sequence[Place]) -> tuple[str, ...]:
    return tuple(place.name for place in reversed(places))


def name_stack(
    space: Space, addresses: Sequence[int], top: Top | None = None
) -> tuple[tuple[str, ...], bool]:
    """Names from the root to the leaf, and whether they go down to the root.

    addresses: the walk, leaf first; all but the leaf are return addresses."""
    if not addresses:
        return (), True
    top = top or Top()
    leaf = space.place(addresses[0])
    if leaf is None:
        return (NO_FRAME_POINTER,), False
    rest = [space.place(address - 1) for address in addresses[1:]]
    good = [place for place in rest if place is not None]
    sane = len(good) == len(rest) > 0
    if leaf.module == space.main:
        return _names([leaf, *good]), sane
    if sane:
        missed = _leaf_caller(space, leaf, addresses[1], top)
        return _names([leaf, *([missed] if missed else []), *good]), True
    callers, entered = _callers(space, top)
    if not callers:
        return (NO_FRAME_POINTER, leaf.name), False
    return _names([leaf, *callers]), entered


def interpreter_stack(space: Space, addresses: Sequence[int]) -> tuple[str, ...]:
    """The native leaf of a thread that runs Python: at most one frame, since the interpreter has
    no frame pointers; the rest of the way is told by Timeline."""
    leaf = space.place(addresses[0]) if addresses else None
    return (leaf.name,) if leaf is not None else ()


def is_interpreter(space: Space) -> bool:
    return space.main.rsplit("/", 1)[-1].startswith(INTERPRETER)
