"""A storage as simple as can be, to be broken in one way at a time."""

import time
from dataclasses import dataclass

from gramkeep.storage import ABSENT, ANY, BUSY, DELETE, KEEP, PLACE_KEPT, Record, Storage


def caught_by(*tests):
    """Note on a class which tests must fail on it: their names, with arguments as a tuple."""

    def note(broken):
        broken.caught_by = [(test,) if isinstance(test, str) else test for test in tests]
        return broken

    return note


@dataclass
class Hold:
    """Who holds a key until when, and who has waited for it since when and asked last."""

    owner: str | None = None
    until: float = 0.0
    waiter: str | None = None
    since: float = 0.0
    seen: float = 0.0


class Unbroken(Storage):
    """A storage as simple as can be, whose handles share dicts, in parts that can be broken."""

    can_lease = True
    transactional = True

    def __init__(self, data=None):
        self.name = "dict:"
        self.data = {} if data is None else data
        self.holds = {}

    def reopen(self):
        second = type(self)(self.data)
        second.holds = self.holds
        return second

    async def get(self, keys):
        return [self.find(key) for key in keys]

    async def claim(self, keys, lease):
        return [self.find(key) if self.take(key, lease) else BUSY for key in keys]

    async def put(self, puts, lease=None, *, atomic=False):
        answers = [self.may_write(put, lease) and self.is_expected(put) for put in puts]
        if all(answers) or not atomic:
            for put, expected in zip(puts, answers, strict=True):
                if expected:
                    self.apply(put)
        for put in puts:
            if lease is not None and not put.hold:
                self.give_up(put.key, lease.owner)
        return answers

    async def scan(self, prefix=""):
        for key in list(self.data):
            if key.startswith(prefix) and self.find(key):
                yield key

    async def prune(self, at_most):
        expired = [key for key in self.data if not self.find(key)][:at_most]
        for key in expired:
            del self.data[key]
        return len(expired)

    async def aclose(self):
        pass

    def find(self, key):
        record = self.data.get(key)
        alive = record and (record.expires_at is None or record.expires_at > time.time())
        return record if alive else None

    def is_expected(self, put):
        record = self.find(put.key)
        if put.expected is ANY or put.expected is ABSENT:
            return put.expected is ANY or record is None
        return record is not None and record.token == put.expected

    def apply(self, put):
        record = self.find(put.key)
        expires_at = None if put.ttl is None else time.time() + put.ttl
        if put.value is DELETE:
            self.data.pop(put.key, None)
        elif put.value is not KEEP:
            self.data[put.key] = Record(put.value, put.value, expires_at)
        elif record is not None and put.ttl is not None:
            self.data[put.key] = Record(record.value, record.token, expires_at)

    def take(self, key, lease):
        hold = self.holds.setdefault(key, Hold())
        since = time.time() - lease.waited.get(key, 0.0)
        if self.may_take(hold, lease.owner, since):
            self.hand_over(hold, lease)
            return True
        self.queue(hold, lease.owner, since)
        return False

    def may_take(self, hold, owner, since):
        if self.holder(hold) is not None:
            return self.holder(hold) == owner
        return self.waiter(hold) in {None, owner} or since <= hold.since

    def hand_over(self, hold, lease):
        hold.owner, hold.until = lease.owner, time.time() + lease.seconds
        if hold.waiter == lease.owner:
            hold.waiter = None

    def queue(self, hold, owner, since):
        if self.waiter(hold) in {None, owner} or since < hold.since:
            hold.waiter, hold.since, hold.seen = owner, since, time.time()

    def holder(self, hold):
        return hold.owner if hold.until > time.time() else None

    def waiter(self, hold):
        return hold.waiter if hold.seen + PLACE_KEPT > time.time() else None

    def may_write(self, put, lease):
        hold = self.holds.get(put.key)
        return lease is None or hold is None or self.holder(hold) in {None, lease.owner}

    def give_up(self, key, owner):
        hold = self.holds.get(key, Hold())
        if hold.owner == owner:
            hold.owner = None
        if hold.waiter == owner:
            hold.waiter = None
