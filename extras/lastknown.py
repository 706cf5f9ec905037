"""Conversations as they were when Redis was last seen, and how one of them is read and saved while it is away.

Nothing here does I/O, and nothing here knows Rasa.
"""

import json
import threading
from collections import OrderedDict
from copy import copy
from dataclasses import replace as replaced
from typing import List, NamedTuple, NoReturn, Optional, Sequence, Tuple, TypeVar, Union

from extras.conversation import Changed, Conversations
from extras.document import SEPARATOR, START, Known, Parsed, SessionStart, canonical, parse, parse_addition
from extras.journal import JournalError
from extras.steps import Steps

Result = TypeVar("Result")
_START = START.encode()
_SEPARATOR = SEPARATOR.encode()
MOST_BYTES = 32 * 1024 * 1024
"""Of all documents that are kept together. Those that were not used for longest are forgotten."""


class Image(NamedTuple):
    """What is known of a document: all of it, or what is in it from an event on, as a document with no others.

    ``text``: empty where there is no document. ``size_bytes``: of the document in Redis, ``None`` where the text is not
    made of Redis's own bytes. ``whole``: whether there are no older events; ``None`` where nobody knows.
    """

    text: bytes
    size_bytes: Optional[int]
    whole: Optional[bool]

    @property
    def known(self) -> Optional[Known]:
        """What is known for the next append, ``None`` if there is no document, or not in Redis's own bytes."""
        if self.size_bytes is None or not self.text:
            return None
        known = parse(self.text).known
        return None if known is None else self._real(known)

    def _real(self, known: Known) -> Known:
        """Return what is known of the document in Redis, for what is known of the text."""
        if self.size_bytes is None or self.size_bytes == len(self.text):
            return known
        anchor_bytes = min(len(known.anchor), known.end_of_events - len(_START))
        anchor = known.anchor[len(known.anchor) - anchor_bytes :]
        return replaced(known, size_bytes=self.size_bytes, anchor=anchor)

    def parsed(self) -> Optional[Parsed]:
        """Return the events and members that are known, ``None`` if there are none. Raises ``ValueError``."""
        if not self.text:
            return None
        parsed = parse(self.text)
        return parsed if parsed.known is None else parsed._replace(known=self._real(parsed.known))

    def spelt(self) -> "Tuple[Image, bytes]":
        """Return the image in the host's own spelling, and the closing bytes of its text. Raises ``ValueError``."""
        if not self.text:
            return self, b""
        parsed = parse(self.text)
        if parsed.known is not None:
            return self, parsed.known.closing
        events = json.dumps(parsed.events)[1:-1]
        closing = json.dumps({"events": [], **parsed.members})[len(START) :].encode()
        return Image(_START + events.encode() + closing, None, self.whole), closing


ABSENT = Image(b"", 0, True)
"""There is no such conversation."""
UNKNOWN = Image(b"", None, None)
"""Nobody knows whether there is one."""


class RememberingConversations(Conversations):
    """Conversations in Redis; the bytes of those read or written last are kept, up to :data:`MOST_BYTES`."""

    def __init__(self, prefix: str, scan_count: int, read_unprefixed: bool) -> None:
        super().__init__(prefix, scan_count, read_unprefixed)
        self._images: OrderedDict[str, Image] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def last_known(self, sender_id: str) -> Image:
        """Return what was last seen of a conversation, :data:`UNKNOWN` if nothing was, or it is forgotten."""
        with self._lock:
            return self._images.get(sender_id, UNKNOWN)

    def remember(self, sender_id: str, image: Image) -> None:
        """Keep what was seen of a conversation."""
        with self._lock:
            old = self._images.pop(sender_id, None)
            if old is not None:
                self._bytes -= _cost(sender_id, old)
            self._images[sender_id] = image
            self._bytes += _cost(sender_id, image)
            while self._bytes > MOST_BYTES:
                self._bytes -= _cost(*self._images.popitem(last=False))

    def forget_locks(self) -> None:
        """Go on after a fork, in whose midst another thread may have held the lock."""
        self._lock = threading.Lock()

    def load(self, sender_id: str) -> Steps[Optional[bytes]]:
        """See :meth:`Conversations.load`."""
        document = yield from super().load(sender_id)
        self.remember(self.bare(sender_id), _of_document(document))
        return document

    def load_session(self, sender_id: str, session: SessionStart) -> Steps[Optional[Parsed]]:
        """See :meth:`Conversations.load_session`."""
        parsed = yield from super().load_session(sender_id, session)
        if parsed is None:
            self.remember(sender_id, ABSENT)
        elif parsed.whole:
            self.remember(sender_id, Image(parsed.text, len(parsed.text) if parsed.known else None, True))
        elif parsed.text and parsed.known is not None:
            self.remember(sender_id, Image(_START + parsed.text, parsed.known.size_bytes, False))
        else:
            closing = json.dumps({"events": [], **parsed.members})[len(START) :]
            text = START + json.dumps(parsed.events)[1:-1] + closing
            self.remember(sender_id, Image(text.encode(), None, False))
        return parsed

    def append(
        self,
        sender_id: str,
        known: Known,
        addition: bytes,
        closing: bytes,
        expires_after_s: Optional[float],
        bodies: Sequence[bytes] = (),
    ) -> Steps[Union[Known, Changed]]:
        """See :meth:`Conversations.append`."""
        found = yield from super().append(sender_id, known, addition, closing, expires_after_s, bodies)
        image = self.last_known(sender_id)
        if image.size_bytes != known.size_bytes or not image.text.endswith(known.closing):
            return found  # of another state than what is kept; the next read tells
        kept = image.text[: len(image.text) - len(known.closing)]
        if isinstance(found, Known):
            self.remember(sender_id, Image(kept + addition + closing, found.size_bytes, image.whole))
            return found
        added = parse_addition(known, found.text, found.size_bytes)
        if added is not None and added.known is not None:
            text = kept + found.text[len(known.anchor) :]
            self.remember(sender_id, Image(text, found.size_bytes, image.whole))
        return found

    def replace_if(
        self,
        sender_id: str,
        stored: Optional[bytes],
        document: bytes,
        expires_after_s: Optional[float],
        bodies: Sequence[bytes] = (),
    ) -> Steps[bool]:
        """See :meth:`Conversations.replace_if`."""
        done = yield from super().replace_if(sender_id, stored, document, expires_after_s, bodies)
        if done:
            self.remember(sender_id, _of_document(document))
        return done

    def replace(self, sender_id: str, document: str, expires_after_s: Optional[float]) -> Steps[None]:
        """See :meth:`Conversations.replace`."""
        yield from super().replace(sender_id, document, expires_after_s)
        self.remember(sender_id, _of_document(document.encode()))

    def erase(self, sender_id: str) -> Steps[None]:
        """See :meth:`Conversations.erase`."""
        yield from super().erase(sender_id)
        self.remember(sender_id, ABSENT)


def _of_document(document: Optional[bytes]) -> Image:
    return ABSENT if document is None else Image(document, len(document), True)


def _cost(sender_id: str, image: Image) -> int:
    return len(image.text) + len(sender_id) + 500  # what Python needs for them


class Taken(NamedTuple):
    """What a save would have appended: events as they stand in a document, and the closing bytes after them."""

    events: bytes
    closing: bytes


class Offline(Conversations):
    """One conversation in the place of Redis, for one operation: as it was last known, with what a save adds to it.

    ``whole``: whether older events than those that are known may be needed, which fails where there are any.
    """

    def __init__(self, prefix: str, image: Image, whole: bool) -> None:
        super().__init__(prefix, 1, False)
        self._image, self._closing = image.spelt()
        self._needs_whole = whole
        self.taken: Optional[Taken] = None
        """What a save has added."""

    def load(self, sender_id: str) -> Steps[Optional[bytes]]:
        """Return the document as far as it is known."""
        yield from ()
        if self._needs_whole and self._image.whole is False:
            raise not_known(sender_id)
        return self._image.text or None

    def load_session(self, sender_id: str, session: SessionStart) -> Steps[Optional[Parsed]]:
        """Return the last session."""
        yield from ()
        parsed = self._image.parsed()
        if parsed is None or self._image.whole is not False:
            return parsed
        return parsed._replace(events=parsed.events[session.last_in(parsed.events) or 0 :], whole=False)

    def append(
        self,
        sender_id: str,
        known: Known,
        addition: bytes,
        closing: bytes,
        expires_after_s: Optional[float],
        bodies: Sequence[bytes] = (),
    ) -> Steps[Union[Known, Changed]]:
        """Take what is to be appended, if ``known`` is what is known here."""
        yield from ()
        text, size_bytes = self._image.text, self._image.size_bytes
        size_bytes = len(text) if size_bytes is None else size_bytes
        if text and known.size_bytes in (size_bytes, len(text)) and known.closing == self._closing:
            self._take(addition[len(_SEPARATOR) :] if addition and not known.empty else addition, closing)
            return known.after_append(addition, closing)
        at = known.end_of_events - len(known.anchor) - (size_bytes - len(text))
        return Changed(size_bytes, text[at:] if at >= 0 else b"")

    def replace_if(
        self,
        sender_id: str,
        stored: Optional[bytes],
        document: bytes,
        expires_after_s: Optional[float],
        bodies: Sequence[bytes] = (),
    ) -> Steps[bool]:
        """Take what is new in ``document``."""
        yield from ()
        parsed, here = parse(document), self._image.parsed()
        forms = set() if here is None else set(map(canonical, here.events))
        new = [event for event in parsed.events if canonical(event) not in forms]
        closing = json.dumps({"events": [], **parsed.members})[len(START) :]
        self._take(json.dumps(new)[1:-1].encode(), closing.encode())
        return True

    def _take(self, events: bytes, closing: bytes) -> None:
        if events or closing != self._closing:
            self.taken = Taken(events, closing)


def not_known(sender_id: str) -> JournalError:
    """Return the error of a read that needs more of a conversation than is known while Redis is away."""
    return JournalError(f"no more than the last session of {sender_id!r} is known here while Redis is away")


def at_once(steps: "Steps[Result]") -> Result:
    """Return the result of steps that ask Redis nothing."""
    try:
        command = next(steps)
    except StopIteration as done:
        result: Result = done.value
        return result
    _asked(command[0])


def _asked(name: object) -> NoReturn:
    raise RuntimeError(f"{name} cannot be carried out without Redis")


class Waiting:
    """A conversation with turns that Redis does not have yet: what it had when last seen, and those turns in order."""

    def __init__(self, base: Image, since_s: float) -> None:
        self.base, self._base_closing = base.spelt()
        self.since_s = since_s
        self.expires_after_s: Optional[float] = None
        self.turns: List[bytes] = []
        self.closing = self._base_closing

    def copy(self) -> "Waiting":
        """Return the same turns, to which none will come."""
        copied = copy(self)
        copied.turns = list(self.turns)
        return copied

    def add(self, taken: Taken, expires_after_s: Optional[float]) -> None:
        """Add a turn."""
        self.turns.append(taken.events)
        self.closing = taken.closing
        self.expires_after_s = expires_after_s

    @property
    def new_events(self) -> bytes:
        """All turns' events as they stand in a document."""
        return _SEPARATOR.join(filter(None, self.turns))

    def image(self) -> Image:
        """Return the conversation as it is with these turns, or would be, had nobody else written to it."""
        base = self.base
        head = base.text[: len(base.text) - len(self._base_closing)] or _START
        new = self.new_events
        text = head + (_SEPARATOR if new and head != _START else b"") + new + self.closing
        size_bytes = None if base.size_bytes is None else base.size_bytes + len(text) - len(base.text)
        return Image(text, size_bytes, base.whole)
