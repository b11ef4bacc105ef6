"""Storages that take lifetimes lightly."""

import math

import msgspec

from gramkeep.storage import ABSENT, ANY, KEEP, Put, Record

from .unbroken import Unbroken, caught_by


@caught_by("test_a_value_without_ttl_never_expires")
class ExpiresEverything(Unbroken):
    def apply(self, put):
        super().apply(msgspec.structs.replace(put, ttl=put.ttl or 3600))


@caught_by(
    ("test_a_value_says_when_it_expires", 25 * 3600),
    ("test_a_value_says_when_it_expires", 14 * 86400),
    ("test_a_value_says_when_it_expires", 400 * 86400),
)
class ForgetsDays(Unbroken):
    """What taking ``timedelta.seconds`` for ``total_seconds()`` does."""

    def apply(self, put):
        super().apply(msgspec.structs.replace(put, ttl=put.ttl and put.ttl % 86400))


@caught_by(("test_a_value_says_when_it_expires", 90))
class SaysNoExpiry(Unbroken):
    async def get(self, keys):
        records = await super().get(keys)
        return [record and Record(record.value, record.token) for record in records]


@caught_by("test_fractions_of_a_second_count")
class RoundsUp(Unbroken):
    def apply(self, put):
        super().apply(msgspec.structs.replace(put, ttl=put.ttl and math.ceil(put.ttl)))


@caught_by("test_fractions_of_a_second_count")
class RoundsDown(Unbroken):
    def apply(self, put):
        super().apply(msgspec.structs.replace(put, ttl=put.ttl and math.floor(put.ttl)))


@caught_by("test_an_expired_value_is_not_scanned")
class ScansExpired(Unbroken):
    async def scan(self, prefix=""):
        for key in list(self.data):
            if key.startswith(prefix):
                yield key


@caught_by(
    "test_an_expired_value_counts_as_absent",
    "test_what_expects_an_expired_value_is_refused",
    "test_an_expired_value_can_be_deleted",
)
class ComparesWithExpired(Unbroken):
    def is_expected(self, put):
        record = self.data.get(put.key)
        if put.expected is ANY or put.expected is ABSENT:
            return put.expected is ANY or record is None
        return record is not None and record.token == put.expected


@caught_by("test_an_expired_value_can_not_be_kept")
class Revives(Unbroken):
    def apply(self, put):
        if put.value is KEEP:
            put = Put(put.key, self.data[put.key].value, ANY, put.ttl)
        super().apply(put)


@caught_by("test_storing_with_a_longer_ttl_extends_a_life")
class NeverExtends(Unbroken):
    def apply(self, put):
        old = self.find(put.key)
        super().apply(put)
        if old and old.expires_at:
            self.data[put.key] = Record(put.value, put.value, old.expires_at)


@caught_by("test_storing_with_a_shorter_ttl_shortens_a_life")
class OnlyExtends(Unbroken):
    def apply(self, put):
        old = self.find(put.key)
        super().apply(put)
        if old and old.expires_at:
            later = max(old.expires_at, self.data[put.key].expires_at)
            self.data[put.key] = Record(put.value, put.value, later)


@caught_by("test_a_refused_put_leaves_the_expiry")
class RefusalTouches(Unbroken):
    def is_expected(self, put):
        expected = super().is_expected(put)
        if not expected:
            self.apply(Put(put.key, KEEP, ANY, put.ttl))
        return expected


@caught_by("test_keep_counts_a_lifetime_anew", "test_keep_gives_a_lasting_value_a_lifetime")
class KeepDoesNothing(Unbroken):
    def apply(self, put):
        if put.value is not KEEP:
            super().apply(put)


@caught_by("test_keep_without_ttl_leaves_the_expiry")
class KeepEndsExpiry(Unbroken):
    def apply(self, put):
        super().apply(put)
        if put.value is KEEP and put.ttl is None:
            self.data[put.key] = Record(self.data[put.key].value, None)
