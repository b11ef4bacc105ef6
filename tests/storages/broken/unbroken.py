"""A storage as simple as can be, to be broken in one way at a time."""

import time

from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Record, Storage


def caught_by(*tests):
    """Note on a class which tests must fail on it: their names, with arguments as a tuple."""

    def note(broken):
        broken.caught_by = [(test,) if isinstance(test, str) else test for test in tests]
        return broken

    return note


class Unbroken(Storage):
    """A storage as simple as can be, whose handles share a dict, in parts that can be broken."""

    transactional = True

    def __init__(self, data=None):
        self.name = "dict:"
        self.data = {} if data is None else data

    def reopen(self):
        return type(self)(self.data)

    async def get(self, keys, lease=None):
        return [self.find(key) for key in keys]

    async def put(self, puts, lease=None, *, atomic=False):
        answers = [self.is_expected(put) for put in puts]
        if all(answers) or not atomic:
            for put, expected in zip(puts, answers, strict=True):
                if expected:
                    self.apply(put)
        return answers

    async def scan(self, prefix=""):
        for key in list(self.data):
            if key.startswith(prefix) and self.find(key):
                yield key

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
