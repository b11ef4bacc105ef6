"""Storages that read something else than was stored."""

import msgspec

from gramkeep.storage import Record

from .unbroken import Unbroken, caught_by


@caught_by("test_the_storage_has_a_name_for_errors_and_logs")
class Nameless(Unbroken):
    def __init__(self, data=None):
        super().__init__(data)
        self.name = ""


@caught_by("test_a_missing_key_reads_as_none")
class MakesUp(Unbroken):
    def find(self, key):
        return super().find(key) or Record(b"{}", b"{}")


@caught_by("test_answers_come_in_the_order_of_the_keys")
class LosesOrder(Unbroken):
    async def get(self, keys):
        return await super().get(sorted(keys))


@caught_by("test_a_key_asked_for_twice_is_answered_twice")
class AnswersOnce(Unbroken):
    async def get(self, keys):
        return await super().get(list(dict.fromkeys(keys)))


@caught_by("test_calls_about_nothing_are_answered_by_nothing")
class AlwaysAnswers(Unbroken):
    async def get(self, keys):
        return await super().get(keys) or [None]


@caught_by("test_many_keys_go_into_one_call")
class CutsCalls(Unbroken):
    async def get(self, keys):
        return await super().get(keys[:999])


@caught_by(("test_bytes_come_back_exactly", b"\r\n a \n\r"))
class Strips(Unbroken):
    def apply(self, put):
        value = put.value.strip() if isinstance(put.value, bytes) else put.value
        super().apply(msgspec.structs.replace(put, value=value))


@caught_by(("test_bytes_come_back_exactly", b"1"))
class GivesLiveObjects(Unbroken):
    def find(self, key):
        record = super().find(key)
        return record and Record(bytearray(record.value), record.token, record.expires_at)


@caught_by("test_a_stored_value_replaces_the_one_before")
class WritesOver(Unbroken):
    def apply(self, put):
        old = self.data.get(put.key)
        super().apply(put)
        if old and isinstance(put.value, bytes):
            value = put.value + old.value[len(put.value) :]
            self.data[put.key] = Record(value, value)


@caught_by("test_lists_given_and_received_are_the_callers_to_change")
class SharesLists(Unbroken):
    async def get(self, keys):
        answers = self.__dict__.setdefault("answers", {})
        if tuple(keys) not in answers:
            answers[tuple(keys)] = await super().get(keys)
        return answers[tuple(keys)]
