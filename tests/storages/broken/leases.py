"""Storages that let the wrong ones write, or hold keys for too long or not long enough."""

import math
import time

import msgspec

from gramkeep.storage import DELETE, KEEP

from .unbroken import Hold, Unbroken, caught_by

HOUR = 3600.0
CHANGES = (
    ((b"new", None), (b"new", None)),
    ((b"new", 2 * HOUR), (b"new", 2 * HOUR)),
    DELETING := ((DELETE, None), None),
    ((KEEP, 2 * HOUR), (b"stored", 2 * HOUR)),
    GIVING_UP := ((KEEP, None), (b"stored", HOUR)),
)


def with_every_change(test):
    return [(test, *change) for change in CHANGES]


@caught_by(
    *with_every_change("test_a_put_gives_the_lease_up"),
    "test_giving_up_leaves_value_and_lifetime",
    "test_one_call_gives_up_some_keys_and_holds_others",
)
class GivesNothingUp(Unbroken):
    def give_up(self, key, owner):
        pass


@caught_by(
    *with_every_change("test_a_put_that_holds_keeps_the_lease"),
    "test_a_refused_put_that_holds_keeps_the_lease",
    "test_one_call_gives_up_some_keys_and_holds_others",
    "test_an_atomic_put_under_leases_writes_all",
)
class HoldsNothing(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        puts = [msgspec.structs.replace(put, hold=False) for put in puts]
        return await super().put(puts, lease, atomic=atomic)


@caught_by(
    ("test_a_put_that_holds_keeps_the_lease", *DELETING),
    ("test_a_put_without_a_lease_leaves_the_lease", *DELETING),
)
class KeepsLeasesInTheRow(Unbroken):
    def apply(self, put):
        super().apply(put)
        if put.value is DELETE:
            self.holds.pop(put.key, None)


@caught_by("test_giving_up_leaves_value_and_lifetime")
class GivingUpTouches(Unbroken):
    def apply(self, put):
        super().apply(msgspec.structs.replace(put, ttl=put.ttl or 60))


@caught_by(
    "test_a_refused_put_gives_the_lease_up",
    "test_one_call_gives_up_some_keys_and_holds_others",
    "test_a_refused_atomic_put_gives_the_leases_up",
)
class GivesUpOnlyWhatItWrote(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        refused = [put for put in puts if not self.is_expected(put)]
        self.refused = [put.key for put in (puts if atomic and refused else refused)]
        return await super().put(puts, lease, atomic=atomic)

    def give_up(self, key, owner):
        if key not in self.refused:
            super().give_up(key, owner)


@caught_by(
    *with_every_change("test_another_owners_put_is_refused"),
    *with_every_change("test_another_owners_put_of_what_is_not_there_is_refused"),
    *with_every_change("test_a_late_owner_is_refused_while_a_rival_holds"),
    "test_one_call_writes_what_no_other_owner_holds",
    "test_a_rivals_lease_undoes_an_atomic_put",
    "test_another_handle_respects_leases",
)
class LetsAnybodyWrite(Unbroken):
    def may_write(self, put, lease):
        return True


@caught_by(
    *with_every_change("test_another_owners_put_is_refused"),
    *with_every_change("test_another_owners_put_of_what_is_not_there_is_refused"),
    *with_every_change("test_a_late_owner_is_refused_while_a_rival_holds"),
    "test_a_rivals_lease_undoes_an_atomic_put",
)
class LetsAnybodyGiveUp(Unbroken):
    def give_up(self, key, owner):
        self.holds.pop(key, None)


@caught_by(
    ("test_another_owners_put_is_refused", *GIVING_UP),
    ("test_another_owners_put_of_what_is_not_there_is_refused", *GIVING_UP),
    ("test_a_late_owner_is_refused_while_a_rival_holds", *GIVING_UP),
)
class AlwaysAgreesToGiveUp(Unbroken):
    def may_write(self, put, lease):
        return (put.value is KEEP and put.ttl is None) or super().may_write(put, lease)


@caught_by("test_one_call_writes_what_no_other_owner_holds")
class RefusesTheWholeCall(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        refused = not all(self.may_write(put, lease) for put in puts)
        return await super().put(puts, lease, atomic=atomic or refused) and [not refused] * 3


@caught_by(
    "test_a_put_under_no_lease_taken_compares_alone",
    "test_one_call_writes_what_no_other_owner_holds",
    "test_a_late_owner_without_a_rival_can_write",
    "test_a_late_owner_can_write_if_a_rival_changed_nothing",
)
class LetsOnlyHoldersWrite(Unbroken):
    def may_write(self, put, lease):
        hold = self.holds.get(put.key, Hold())
        return lease is None or self.holder(hold) == lease.owner


@caught_by("test_a_put_under_no_lease_taken_compares_alone")
class HoldsWhatWasNeverClaimed(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        for put in puts:
            if put.hold:
                self.take(put.key, lease)
        return await super().put(puts, lease, atomic=atomic)


@caught_by("test_a_put_without_a_lease_compares_alone")
class LetsNobodyWriteWithoutALease(Unbroken):
    def may_write(self, put, lease):
        if lease is not None:
            return super().may_write(put, lease)
        return self.holder(self.holds.get(put.key, Hold())) is None


@caught_by(*with_every_change("test_a_put_without_a_lease_leaves_the_lease"))
class AnyPutEndsTheLease(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        for put in puts if lease is None else ():
            self.holds.pop(put.key, None)
        return await super().put(puts, lease, atomic=atomic)


@caught_by(
    "test_a_put_without_a_lease_uses_up_the_owners_token",
    "test_the_token_of_a_claim_is_what_a_put_compares",
    "test_what_nobody_stored_expects_absence_under_a_lease",
    "test_a_refused_put_gives_the_lease_up",
    "test_a_late_owner_is_refused_after_a_rivals_change",
    "test_a_refused_atomic_put_gives_the_leases_up",
)
class ComparesNothingUnderALease(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        self.lease = lease
        return await super().put(puts, lease, atomic=atomic)

    def is_expected(self, put):
        return self.lease is not None or super().is_expected(put)


@caught_by("test_a_lease_outlives_the_value")
class LeaseEndsWithTheValue(Unbroken):
    def find(self, key):
        record = super().find(key)
        if record is None and self.data.pop(key, None):
            self.holds.pop(key)
        return record

    def take(self, key, lease):
        self.find(key)
        return super().take(key, lease)


@caught_by("test_pruning_takes_no_lease_away")
class PrunesLeasesOfNothing(Unbroken):
    async def prune(self, at_most):
        for key in self.holds.keys() - self.data.keys():
            del self.holds[key]
        return await super().prune(at_most)


@caught_by("test_a_value_outlives_the_lease")
class ValueEndsWithTheLease(Unbroken):
    def find(self, key):
        hold = self.holds.get(key, Hold())
        return None if hold.owner and not self.holder(hold) else super().find(key)


@caught_by("test_a_lease_ends_after_its_seconds_and_not_before")
class RoundsLeasesUp(Unbroken):
    def hand_over(self, hold, lease):
        super().hand_over(hold, msgspec.structs.replace(lease, seconds=math.ceil(lease.seconds)))


@caught_by("test_a_lease_ends_after_its_seconds_and_not_before")
class RoundsLeasesDown(Unbroken):
    def hand_over(self, hold, lease):
        super().hand_over(hold, msgspec.structs.replace(lease, seconds=math.floor(lease.seconds)))


@caught_by("test_a_late_owner_without_a_rival_can_write")
class RefusesTheLate(Unbroken):
    def may_write(self, put, lease):
        hold = self.holds.get(put.key, Hold())
        return super().may_write(put, lease) and not 0 < hold.until < time.time()


@caught_by("test_a_late_owner_without_a_rival_can_claim_again")
class NeverLetsTheLateClaimAgain(Unbroken):
    def may_take(self, hold, owner, since):
        is_late = hold.owner == owner and self.holder(hold) is None
        return not is_late and super().may_take(hold, owner, since)


@caught_by(
    "test_a_rivals_lease_undoes_an_atomic_put", "test_a_refused_atomic_put_gives_the_leases_up"
)
class IgnoresAtomic(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        return await super().put(puts, lease)


@caught_by("test_another_handle_respects_leases", "test_another_handle_waits_in_the_same_order")
class LeasesPerHandle(Unbroken):
    def reopen(self):
        return type(self)(self.data)
