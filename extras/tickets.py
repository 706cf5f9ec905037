"""The queue for one conversation's lock in Redis: one string key, a ``TicketLock`` as the stock Redis lock store has.

Every step that changes it is one script, so that nobody's ticket is lost between a read and a write, and a ticket
expires by the server's clock, whatever those of the workers say. A ticket of ours has an ``owner`` beside the stock
``number`` and ``expires``: numbers begin again with each new queue, and an owner never comes twice, so that what is
repeated after a lost reply changes nothing, and who comes too late takes away nobody else's ticket. A stock worker
leaves it out when it writes the queue; then the number counts. Nothing here does I/O, and nothing here knows Rasa.
"""

import json
from typing import Any, NamedTuple, Optional

from extras.steps import Script, Steps

LOCK_INFIX = "lock:"
"""What the stock stores since Rasa 2.1 put before a conversation id, after the prefix."""

_NOBODY = -1
"""No ticket has this number."""

# Reads the tickets that have not expired into `tickets`; `place` returns where that of an owner is, or the one of this
# number where either side names no owner, 0 if there is none.
_READ = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local text = redis.call('GET', KEYS[1])
local tickets, expired = {}, 0
local function read()
  for _, each in ipairs(cjson.decode(text).tickets) do
    local ticket = cjson.decode(each)
    if ticket.expires > now then tickets[#tickets + 1] = ticket else expired = expired + 1 end
    ticket.number = ticket.number + 0
  end
end
if text and not pcall(read) then return redis.error_reply('ERR the key holds something else than a lock') end
local function place(owner, number)
  for at, ticket in ipairs(tickets) do
    local is_named = not ticket.owner or owner == ''
    if ticket.owner == owner or (is_named and ticket.number == number) then return at end
  end
  return 0
end
"""

# `save` writes the tickets as json.dumps does; the key expires with the last of them. ARGV[1]: the conversation id in
# JSON.
_WRITE = """
local function save()
  local texts, last = {}, 0
  for at, ticket in ipairs(tickets) do
    local owner = ''
    if type(ticket.owner) == 'string' and not string.find(ticket.owner, '%W') then
      owner = ', "owner": "' .. ticket.owner .. '"'
    end
    local expires = string.gsub(string.gsub(string.format('%.6f', ticket.expires), '0+$', ''), '%.$', '.0')
    local one = string.format('{"number": %.0f, "expires": %s%s}', ticket.number, expires, owner)
    texts[at] = '"' .. string.gsub(one, '"', '\\\\"') .. '"'
    last = math.max(last, ticket.expires)
  end
  if #tickets == 0 then return redis.call('DEL', KEYS[1]) end
  text = '{"conversation_id": ' .. ARGV[1] .. ', "tickets": [' .. table.concat(texts, ', ') .. ']}'
  redis.call('SET', KEYS[1], text, 'PX', math.max(1, math.ceil((last - now) * 1000)))
end
"""

# What is answered about a ticket: [its number, how many are before it, the milliseconds until the one before it
# expires, the queue].
_ANSWER = """
local function answer(at)
  local left = at > 1 and math.max(0, math.ceil((tickets[at - 1].expires - now) * 1000)) or 0
  return {tickets[at].number, at - 1, left, text}
end
"""

# ARGV: the conversation id in JSON, the owner, the lifetime in seconds.
_ISSUE = Script(
    _READ
    + _WRITE
    + _ANSWER
    + """
local at = place(ARGV[2])
if at == 0 then
  local number = #tickets > 0 and tickets[#tickets].number + 1 or 0
  at = #tickets + 1
  tickets[at] = {number = number, expires = now + ARGV[3], owner = ARGV[2]}
  save()
end
return answer(at)
"""
)

# ARGV: the owner, the number.
_LOOK = Script(
    _READ
    + _ANSWER
    + """
local at = place(ARGV[1], tonumber(ARGV[2]))
if at == 0 then return {} end
return answer(at)
"""
)

# ARGV: the conversation id in JSON, the owner, the number, the channel on which the ticket behind it is called. That is
# the next one to be served, or has another one before it now. A user without a right to channels is let alone.
_GIVE_BACK = Script(
    _READ
    + _WRITE
    + """
local at = place(ARGV[2], tonumber(ARGV[3]))
if at > 0 then table.remove(tickets, at) end
if at > 0 or expired > 0 then save() end
local behind = at > 0 and tickets[at]
if behind and behind.owner then redis.pcall('PUBLISH', ARGV[4], behind.owner) end
return at > 0 and 1 or 0
"""
)

# ARGV: the queue, its lifetime in seconds if it holds no ticket.
_REPLACE = Script(
    _READ
    + """
text, tickets = ARGV[1], {}
read()
local last = 0
for _, ticket in ipairs(tickets) do last = math.max(last, ticket.expires - now) end
if last == 0 then last = ARGV[2] + 0 end
redis.call('SET', KEYS[1], text, 'PX', math.max(1, math.ceil(last * 1000)))
"""
)


class Place(NamedTuple):
    """Where a ticket stands: its number, how many are before it, when the one before it expires, in seconds.

    ``queue``: the ``TicketLock`` in JSON.
    """

    number: int
    ahead: int
    expires_in_s: float
    queue: bytes


class Queues:
    """The locks of all conversations below one prefix, each operation as steps.

    ``prefix``: what stands before the conversation id in a key, empty for Rasa 2.0's bare ids.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.channel = f"{prefix or LOCK_INFIX}called"
        """Where the owner of a ticket is called when its turn may have come."""

    def key(self, conversation_id: str) -> bytes:
        """Return the key that holds the lock of a conversation."""
        return (self._prefix + conversation_id).encode()

    def issue(self, conversation_id: str, owner: str, lifetime_s: float) -> "Steps[Place]":
        """Put a ticket at the end of the queue, that expires after so many seconds, and return where it stands.

        Repeating it changes nothing. Raises Redis' error where the key holds something else than a lock.
        """
        replied = yield from _ISSUE.call(
            self.key(conversation_id), json.dumps(conversation_id), owner, repr(float(lifetime_s))
        )
        return _place(replied)

    def look(self, conversation_id: str, owner: str, number: int) -> "Steps[Optional[Place]]":
        """Return where a ticket stands, ``None`` if it is there no more."""
        replied = yield from _LOOK.call(self.key(conversation_id), owner, number)
        return _place(replied) if replied else None

    def give_back(self, conversation_id: str, owner: str, number: int = _NOBODY) -> "Steps[bool]":
        """Take a ticket out and call the one behind it; return whether it was there. The last one takes the key along.

        ``owner``: empty for the ticket of a number, whoever has it. Tickets that have expired go in any case.
        """
        replied = yield from _GIVE_BACK.call(
            self.key(conversation_id), json.dumps(conversation_id), owner, number, self.channel
        )
        return bool(replied)

    def load(self, conversation_id: str) -> "Steps[Optional[bytes]]":
        """Return the ``TicketLock`` in JSON, expired tickets among it, ``None`` if there is none."""
        queue: Optional[bytes] = yield ("GET", self.key(conversation_id))
        return queue

    def replace(self, conversation_id: str, queue: str, empty_lifetime_s: float) -> "Steps[None]":
        """Store a ``TicketLock`` in JSON as it is, until its last ticket expires, or for so long if it has none."""
        yield from _REPLACE.call(self.key(conversation_id), queue, repr(float(empty_lifetime_s)))

    def erase(self, conversation_id: str) -> "Steps[bool]":
        """Delete the lock with all its tickets; return whether there was one."""
        deleted: Any = yield ("DEL", self.key(conversation_id))
        return bool(deleted)


def _place(replied: Any) -> Place:
    number, ahead, expires_in_ms, queue = replied
    return Place(int(number), int(ahead), expires_in_ms / 1000, queue)
