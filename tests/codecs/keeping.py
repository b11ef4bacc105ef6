"""What an update does with a codec, without a storage."""

from typing import Any, NamedTuple


class Kept(NamedTuple):
    """What is stored under one key."""

    bound: Any
    key: str
    stored: bytes

    def load(self):
        return self.bound.decode(self.bound.unseal(self.stored, self.key), self.key)

    def changed_to(self, value):
        """Save another value; gives what is stored then, the same object where nothing changed."""
        baseline = self.bound.unseal(self.stored, self.key)
        encoded = self.bound.encode(value, self.key)
        if encoded == baseline or self.bound.is_same(value, encoded, baseline, self.key):
            return self
        return keep(self.bound, value, self.key)


def keep(bound, value, key="chat:42"):
    """Save a value for which nothing is stored."""
    encoded = bound.encode(value, key)
    bound.check(value, encoded, key)
    return Kept(bound, key, bound.seal(encoded, key))


def round_trip(codec, data_type, value):
    return keep(codec.bind(data_type), value).load()
