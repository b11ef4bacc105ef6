"""Storages that change something else than was asked, or answer something else."""

import msgspec

from gramkeep.storage import ABSENT, ANY, DELETE, KEEP, Put, Record

from .unbroken import Unbroken, caught_by


@caught_by("test_a_put_that_expects_anything_is_always_done")
class NeverReplaces(Unbroken):
    def is_expected(self, put):
        return self.find(put.key) is None


@caught_by("test_a_put_that_expects_absence_stores_what_is_not_there")
class NeverMakes(Unbroken):
    def is_expected(self, put):
        return put.expected is not ABSENT and super().is_expected(put)


@caught_by("test_a_put_that_expects_absence_replaces_nothing")
class TakesEmptyForAbsent(Unbroken):
    def is_expected(self, put):
        empty = put.expected is ABSENT and (record := self.find(put.key)) and not record.value
        return bool(empty) or super().is_expected(put)


@caught_by("test_a_put_that_expects_the_stored_value_replaces_it")
class ForgetsTokens(Unbroken):
    def find(self, key):
        record = super().find(key)
        return record and Record(record.value, object(), record.expires_at)


@caught_by(
    "test_a_put_that_expects_an_older_value_is_refused",
    "test_a_put_that_expects_a_deleted_value_is_refused",
    "test_writers_that_compare_lose_no_update",
)
class IgnoresExpected(Unbroken):
    def is_expected(self, put):
        return True


@caught_by("test_a_token_is_used_up_by_its_own_change")
class TokenIsTheKey(Unbroken):
    def find(self, key):
        record = super().find(key)
        return record and Record(record.value, key, record.expires_at)


@caught_by("test_a_token_holds_as_long_as_the_value_does")
class OneVersionForAll(Unbroken):
    version = 0

    def find(self, key):
        record = super().find(key)
        return record and Record(record.value, self.version, record.expires_at)

    def apply(self, put):
        super().apply(put)
        self.version += 1


@caught_by("test_tokens_read_together_are_each_of_their_own_key")
class OneTokenForAll(Unbroken):
    async def get(self, keys):
        records = await super().get(keys)
        return [record and Record(record.value, records[0].token) for record in records]


@caught_by("test_a_refusal_stands_at_its_own_place_and_the_rest_is_done")
class AnswersForAll(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        answers = await super().put(puts)
        return [all(answers)] * len(answers)


@caught_by("test_changes_of_every_kind_go_into_one_call")
class OneTtlForAll(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        ttl = max((put.ttl for put in puts if put.ttl is not None), default=None)
        return await super().put([msgspec.structs.replace(put, ttl=ttl) for put in puts])


@caught_by(
    "test_a_deleted_key_is_gone_and_its_neighbours_are_not",
    "test_deleting_one_key_deletes_no_other",
)
class DeletesByPrefix(Unbroken):
    def apply(self, put):
        super().apply(put)
        for key in [key for key in self.data if put.value is DELETE and key.startswith(put.key)]:
            del self.data[key]


@caught_by("test_deleting_what_is_not_there_is_done_already")
class CountsDeletedRows(Unbroken):
    def is_expected(self, put):
        return super().is_expected(put) and (put.value is not DELETE or put.key in self.data)


@caught_by("test_a_delete_that_expects_something_else_is_refused")
class DeletesAnyway(Unbroken):
    def is_expected(self, put):
        return put.value is DELETE or super().is_expected(put)


@caught_by("test_a_deleted_key_can_be_made_again", "test_storing_without_ttl_ends_an_expiry")
class ForgetsNoExpiry(Unbroken):
    def apply(self, put):
        ttls = self.__dict__.setdefault("ttls", {})
        ttls[put.key] = put.ttl or ttls.get(put.key)
        super().apply(msgspec.structs.replace(put, ttl=ttls[put.key]))


@caught_by("test_keep_leaves_the_value_and_its_token")
class KeepChangesToken(Unbroken):
    def apply(self, put):
        super().apply(put)
        if put.value is KEEP:
            record = self.data[put.key]
            self.data[put.key] = Record(record.value, object(), record.expires_at)


@caught_by("test_keep_makes_nothing_of_what_is_not_there")
class KeepMakes(Unbroken):
    def apply(self, put):
        if put.value is KEEP and not self.find(put.key):
            put = Put(put.key, b"", ANY, put.ttl)
        super().apply(put)


@caught_by("test_a_keep_that_expects_something_else_is_refused")
class KeepsAnyway(Unbroken):
    def is_expected(self, put):
        return put.value is KEEP or super().is_expected(put)


@caught_by("test_an_atomic_put_does_all_when_all_is_as_expected")
class RefusesAtomicPuts(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        return [False] * len(puts) if atomic else await super().put(puts)


@caught_by("test_one_refusal_undoes_an_atomic_put")
class AtomicInNameOnly(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        return await super().put(puts)
