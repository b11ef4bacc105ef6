"""Storages whose claims say something else than what is stored, and who holds it."""

import time

import msgspec

from gramkeep.storage import BUSY, Record

from .unbroken import Unbroken, caught_by


@caught_by(
    "test_a_claimed_key_is_busy_to_another_owner",
    "test_what_is_not_there_can_be_claimed",
    "test_another_handle_respects_leases",
    "test_of_many_that_claim_a_key_one_gets_it",
    "test_claims_in_any_order_never_wait_for_each_other",
    "test_a_lease_alone_loses_no_update",
    "test_a_lease_alone_loses_no_update_over_two_handles",
)
class KeepsNobodyAway(Unbroken):
    async def claim(self, keys, lease):
        return await self.get(keys)


@caught_by("test_a_claimed_key_is_busy_to_another_owner")
class LetsInWhoWaitedLong(Unbroken):
    def may_take(self, hold, owner, since):
        return time.time() - since > 100 or super().may_take(hold, owner, since)


@caught_by(
    "test_what_is_not_there_can_be_claimed",
    "test_an_expired_value_is_absent_to_a_claim",
    "test_a_lease_outlives_the_value",
)
class LeasesOnlyWhatIsThere(Unbroken):
    def take(self, key, lease):
        return not self.find(key) or super().take(key, lease)


@caught_by("test_a_claim_answers_each_key_for_itself")
class AllBusyIfOneIs(Unbroken):
    async def claim(self, keys, lease):
        answers = await super().claim(keys, lease)
        return [BUSY] * len(keys) if BUSY in answers else answers


@caught_by("test_a_claim_answers_each_key_for_itself", "test_any_key_can_be_claimed_for_itself")
class StopsAtTheFirstBusy(Unbroken):
    async def claim(self, keys, lease):
        answers = await super().claim(keys, lease)
        first = answers.index(BUSY) if BUSY in answers else len(answers)
        return answers[:first] + [BUSY] * (len(answers) - first)


@caught_by("test_a_claim_of_nothing_is_answered_by_nothing")
class AlwaysAnswers(Unbroken):
    async def claim(self, keys, lease):
        return await super().claim(keys, lease) or [None]


@caught_by("test_many_keys_are_claimed_in_one_call")
class CutsClaims(Unbroken):
    async def claim(self, keys, lease):
        return await super().claim(keys[:999], lease)


@caught_by(
    ("test_a_claim_gives_bytes_exactly", b"\r\n a \n\r"),
    ("test_a_claim_gives_bytes_exactly", b"\xff\xfe\x80"),
)
class ClaimsText(Unbroken):
    async def claim(self, keys, lease):
        return [
            msgspec.structs.replace(answer, value=answer.value.decode(errors="replace"))
            if isinstance(answer, Record)
            else answer
            for answer in await super().claim(keys, lease)
        ]


@caught_by("test_a_claim_says_when_a_value_expires")
class ClaimsWithoutExpiry(Unbroken):
    async def claim(self, keys, lease):
        return [
            Record(answer.value, answer.token) if isinstance(answer, Record) else answer
            for answer in await super().claim(keys, lease)
        ]


@caught_by(
    "test_the_owner_can_claim_again",
    "test_a_token_read_before_holds_under_a_lease",
    "test_a_late_owner_can_write_if_a_rival_changed_nothing",
)
class ClaimChangesTheToken(Unbroken):
    claims = 0

    def find(self, key):
        record = super().find(key)
        return record and Record(record.value, (record.token, self.claims), record.expires_at)

    def hand_over(self, hold, lease):
        super().hand_over(hold, lease)
        self.claims += 1


@caught_by("test_an_expired_value_is_absent_to_a_claim")
class ClaimsExpired(Unbroken):
    async def claim(self, keys, lease):
        return [self.data.get(key) if self.take(key, lease) else BUSY for key in keys]


@caught_by(
    "test_a_claim_of_what_is_not_there_shows_nowhere",
    "test_what_nobody_stored_expects_absence_under_a_lease",
)
class StoresAnEmptyRow(Unbroken):
    def take(self, key, lease):
        self.data.setdefault(key, Record(b"", b"", None))
        return super().take(key, lease)


@caught_by("test_a_get_ignores_leases")
class ReadsOnlyWhatIsFree(Unbroken):
    def find(self, key):
        return None if key in self.holds else super().find(key)


@caught_by("test_the_owner_can_claim_again", "test_a_renewal_comes_before_those_who_wait")
class ClaimsOnce(Unbroken):
    def may_take(self, hold, owner, since):
        return self.holder(hold) is None and super().may_take(hold, owner, since)


@caught_by("test_claiming_again_counts_the_lease_from_now")
class NeverRenews(Unbroken):
    def hand_over(self, hold, lease):
        until = hold.until if self.holder(hold) else None
        super().hand_over(hold, lease)
        hold.until = until or hold.until


@caught_by("test_any_key_can_be_claimed_for_itself")
class FoldsCaseOfLeases(Unbroken):
    def take(self, key, lease):
        return super().take(key.casefold(), lease)
