"""The Lua that Redis runs, so that a key is compared, changed, claimed and given up in one step.

A lease is a key of its own beside the session's (see `gramkeep.storages.redis.keys`), and expires
by itself. As long as nobody waits for it, it holds ``=owner`` and its lifetime is the lease's.
Otherwise it holds ``+until since seen size ownerwaiter``: until when the owner has it, since when
the other one waits and when it asked last, in milliseconds of the server's clock, and the size of
the owner's name, which is empty where nobody has it. It then lives as long as the lease or as the
waiter's place, whichever is longer.

Scripts carry out many changes, each under Lua's own ``pcall``: an error, such as a key of another
type, becomes the answer at its place and leaves the rest alone. Only that the server has become a
replica, where nothing can have been written, ends the script.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

import msgspec

from gramkeep.storages.redis.packing import packed

CLOCKS_DIFFER: Final = 2  # milliseconds of wait that make no difference, for the sake of rounding


class Script(msgspec.Struct, frozen=True):
    """A script's text, and ``called``: how it begins to be called by its digest."""

    text: bytes
    called: bytes


def _script(*parts: str) -> Script:
    text = "\n".join(parts).encode()
    digest = sha1(text, usedforsecurity=False).hexdigest().encode()
    return Script(text, packed(b"EVALSHA", digest))


_PER_KEY = """
local function each(count, width, answer)
  local answers = {}
  for i = 1, count do
    local done, first, second = pcall(answer, i)
    if not done then
      local reason = type(first) == 'table' and first.err or tostring(first)
      if string.find(reason, 'READONLY', 1, true) then error(first, 0) end
      first, second = {err = reason}, 0
    end
    answers[(i - 1) * width + 1] = first
    if width == 2 then answers[i * 2] = second end
  end
  return answers
end
"""

_READ = """
local function read(key)
  local value = redis.call('GET', key)
  if value then return value, redis.call('PTTL', key) end
  return false, 0
end
"""

_LEASE = """
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function parsed(state, key, now)
  if string.byte(state) == 61 then  -- =
    return string.sub(state, 2), now + redis.call('PTTL', key)
  end
  local ends, since, seen, size, at =
    string.match(state, '^%+(%-?%d+) (%-?%d+) (%-?%d+) (%d+) ()')
  size = tonumber(size)
  return string.sub(state, at, at + size - 1), tonumber(ends),
    string.sub(state, at + size), tonumber(since), tonumber(seen)
end

local function number(value) return string.format('%.0f', value) end

local function keep(key, now, kept, owner, ends, waiter, since, seen)
  local lasts = ends - now
  if waiter then
    lasts = math.max(lasts, seen + kept - now)
    owner = '+' .. number(ends) .. ' ' .. number(since) .. ' ' .. number(seen) .. ' '
      .. #owner .. ' ' .. owner .. waiter
  else
    owner = '=' .. owner
  end
  if lasts > 0 then
    redis.call('SET', key, owner, 'PX', number(lasts))
  else
    redis.call('DEL', key)
  end
end
"""

# KEYS: the sessions' keys. Answers: value and PTTL, in pairs.
READ: Final = _script(
    _PER_KEY,
    _READ,
    "return each(#KEYS, 2, function(i) return read(KEYS[i]) end)",
)

# KEYS: a session's key and its lease's, in pairs. ARGV: the owner, and in milliseconds what the
# lease lasts, how long a place is kept, and, if it did, how long the owner has waited for each key.
# Answers: value and PTTL, in pairs, the value being 1 for a key that is busy.
CLAIM: Final = _script(
    _PER_KEY,
    _READ,
    _LEASE,
    f"""
local me, held, lasts, kept = ARGV[1], '=' .. ARGV[1], ARGV[2], tonumber(ARGV[3])

local function is_mine(key, waited)
  if redis.call('SET', key, held, 'PX', lasts, 'NX') then return true end
  local now = clock()
  local owner, ends, waiter, since, seen = parsed(redis.call('GET', key), key, now)
  local own_since = now - waited
  if waiter and (waiter == me or seen + kept <= now) then waiter = nil end
  local is_free = owner == me or ends <= now
  local is_longer = waiter and since < own_since - {CLOCKS_DIFFER}
  if is_free and (not is_longer or (owner == me and ends > now)) then
    keep(key, now, kept, me, now + lasts, waiter, since, seen)
    return true
  end
  if not waiter or own_since < since then
    waiter, since, seen = me, own_since, now
  end
  keep(key, now, kept, owner, ends, waiter, since, seen)
  return false
end

return each(#KEYS / 2, 2, function(i)
  if is_mine(KEYS[2 * i], tonumber(ARGV[3 + i] or 0)) then return read(KEYS[2 * i - 1]) end
  return 1, 0
end)
""",
)

# KEYS: the sessions' keys; with a lease each is followed by its lease's. ARGV: the owner or
# nothing, how long a place is kept in milliseconds, 1 for all or none; then for each change a
# word, the expected value or its digest, and the value. The word says what to do (Set, Delete,
# Keep), what is expected (Any, None, a Value, a Digest, or eXcluded: nothing fits), whether the
# lease is Held, and, if the value has one, its lifetime in milliseconds.
# Answers: 1 for a change that was carried out, 0 for one that wasn't.
CHANGE: Final = _script(
    _PER_KEY,
    _LEASE,
    """
local me, kept, is_atomic = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local held, width = '=' .. me, me == '' and 1 or 2

local function is_barred(key, state)  -- by another's lease; the own place is given up then
  if not state or state == held then return false end
  local now = clock()
  local owner, ends, waiter, since, seen = parsed(state, key, now)
  if owner == me or owner == '' or ends <= now then return false end
  if waiter == me then keep(key, now, kept, owner, ends) end
  return true
end

local function give_up(key, state)
  if not state then return end
  if state == held then redis.call('DEL', key) return end
  local now = clock()
  local owner, ends, waiter, since, seen = parsed(state, key, now)
  if waiter == me then waiter = nil end
  if owner == me then owner, ends = '', 0 end
  keep(key, now, kept, owner, ends, waiter, since, seen)
end

local function is_expected(key, word, expected)
  local basis = string.sub(word, 2, 2)
  if basis == 'A' then return true end
  local value = redis.pcall('GET', key)
  if basis == 'N' then return value == false end
  if type(value) ~= 'string' then return false end
  if basis == 'V' then return value == expected end
  return basis == 'D' and redis.sha1hex(value) == expected
end

local function change(key, word, value)
  local what, ttl = string.sub(word, 1, 1), #word > 3 and string.sub(word, 4)
  if what == 'S' and ttl then
    redis.call('SET', key, value, 'PX', ttl)
  elseif what == 'S' then
    redis.call('SET', key, value)
  elseif what == 'D' then
    redis.call('DEL', key)
  elseif ttl then
    redis.call('PEXPIRE', key, ttl)
  end
end

local function attempt(i, asked)
  local key, at = KEYS[(i - 1) * width + 1], 3 * i + 1
  local word = ARGV[at]
  local lease = me ~= '' and KEYS[i * 2]
  local state = lease and redis.call('GET', lease)
  local fits = not (lease and is_barred(lease, state)) and is_expected(key, word, ARGV[at + 1])
  if asked == 'fits' then return fits and 1 or 0 end
  local failure
  if fits and asked ~= 'give up' then
    local done, reason = pcall(change, key, word, ARGV[at + 2])
    if not done then failure = reason end
  end
  if lease and string.sub(word, 3, 3) ~= 'H' then give_up(lease, state) end
  if failure then error(failure, 0) end
  return fits and 1 or 0
end

local count = #KEYS / width
if not is_atomic then return each(count, 1, attempt) end
local answers = each(count, 1, function(i) return attempt(i, 'fits') end)
local asked = 'all'
for i = 1, count do
  if answers[i] ~= 1 then asked = 'give up' end
end
local done = each(count, 1, function(i) return attempt(i, asked) end)
return asked == 'all' and done or answers
""",
)
