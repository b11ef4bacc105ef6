"""Storages that keep no order among those who wait, or lose to a cancellation."""

import asyncio

import msgspec

from gramkeep.storage import BUSY

from .unbroken import Hold, Unbroken, caught_by


@caught_by(
    "test_who_has_waited_for_longer_comes_first",
    "test_a_place_is_kept_between_two_claims",
    "test_a_place_is_kept_as_long_as_its_waiter_asks",
    "test_a_lost_place_can_be_taken_by_one_who_waited_less",
    "test_a_longer_wait_displaces_a_shorter_one",
    "test_a_shorter_wait_does_not_displace_a_longer_one",
    "test_each_key_of_a_claim_has_its_own_wait",
    "test_a_late_owner_comes_after_those_who_wait",
    "test_another_handle_waits_in_the_same_order",
    "test_no_owner_is_left_waiting_while_another_comes_again",
)
class WhoAsksFirstIsFirst(Unbroken):
    def waiter(self, hold):
        return None


@caught_by("test_the_longest_wait_comes_before_a_place_taken_earlier")
class WhoHasThePlaceIsFirst(Unbroken):
    def may_take(self, hold, owner, since):
        return super().may_take(hold, owner, since) and self.waiter(hold) in {None, owner}


@caught_by("test_a_longer_wait_displaces_a_shorter_one")
class FirstPlaceStays(Unbroken):
    def queue(self, hold, owner, since):
        if self.waiter(hold) in {None, owner}:
            super().queue(hold, owner, since)


@caught_by("test_a_shorter_wait_does_not_displace_a_longer_one")
class LastPlaceCounts(Unbroken):
    def queue(self, hold, owner, since):
        hold.waiter = None
        super().queue(hold, owner, since)


@caught_by("test_a_place_is_kept_between_two_claims")
class ForgetsPlacesSoon(Unbroken):
    def queue(self, hold, owner, since):
        super().queue(hold, owner, since)
        hold.seen -= 0.2


@caught_by("test_a_place_is_kept_as_long_as_its_waiter_asks")
class CountsFromTheFirstClaim(Unbroken):
    def queue(self, hold, owner, since):
        if hold.waiter != owner:
            super().queue(hold, owner, since)


@caught_by("test_who_asks_no_more_loses_the_place")
class KeepsPlacesForEver(Unbroken):
    def waiter(self, hold):
        return hold.waiter


@caught_by("test_a_lost_place_can_be_taken_by_one_who_waited_less")
class LostPlacesStayTaken(Unbroken):
    def queue(self, hold, owner, since):
        if hold.waiter in {None, owner} or since < hold.since:
            super().queue(hold, owner, since)


@caught_by("test_who_waits_for_one_key_hinders_nobody_at_another")
class OneQueueForAllKeys(Unbroken):
    def waiter(self, hold):
        waiters = [super(OneQueueForAllKeys, self).waiter(any_) for any_ in self.holds.values()]
        return next(filter(None, waiters), None)


@caught_by("test_each_key_of_a_claim_has_its_own_wait")
class OneWaitForAllKeys(Unbroken):
    def take(self, key, lease):
        longest = max(lease.waited.values(), default=0)
        return super().take(key, msgspec.structs.replace(lease, waited={key: longest}))


@caught_by("test_who_gives_the_place_up_hinders_nobody")
class GivesNoPlaceUp(Unbroken):
    def give_up(self, key, owner):
        if self.holds.get(key, Hold()).owner == owner:
            super().give_up(key, owner)


@caught_by("test_who_got_the_key_waits_no_more")
class WaitsForWhatItHolds(Unbroken):
    def hand_over(self, hold, lease):
        waiter = hold.waiter
        super().hand_over(hold, lease)
        hold.waiter = waiter


@caught_by("test_a_renewal_comes_before_those_who_wait")
class RenewsWhenNobodyWaits(Unbroken):
    def may_take(self, hold, owner, since):
        return self.waiter(hold) in {None, owner} and super().may_take(hold, owner, since)


@caught_by("test_those_who_wait_hinder_no_writing")
class WaitersKeepWritersAway(Unbroken):
    def may_write(self, put, lease):
        waiter = self.waiter(self.holds.get(put.key, Hold()))
        return super().may_write(put, lease) and (lease is None or waiter in {None, lease.owner})


@caught_by("test_a_late_owner_comes_after_those_who_wait")
class TheLastOwnerComesFirst(Unbroken):
    def may_take(self, hold, owner, since):
        is_late = hold.owner == owner and self.holder(hold) is None
        return is_late or super().may_take(hold, owner, since)


@caught_by(
    "test_of_many_that_claim_a_key_one_gets_it",
    "test_claims_in_any_order_never_wait_for_each_other",
    "test_a_lease_alone_loses_no_update",
    "test_a_lease_alone_loses_no_update_over_two_handles",
)
class LooksBeforeItTakes(Unbroken):
    async def claim(self, keys, lease):
        holds = [self.holds.setdefault(key, Hold()) for key in keys]
        free = [self.may_take(hold, lease.owner, 0) for hold in holds]
        await asyncio.sleep(0)
        for hold, is_free in zip(holds, free, strict=True):
            if is_free:
                self.hand_over(hold, lease)
        records = await self.get(keys)
        return [record if is_free else BUSY for record, is_free in zip(records, free, strict=True)]


@caught_by("test_claims_in_any_order_never_wait_for_each_other")
class LocksRowsAsTheyCome(Unbroken):
    def __init__(self, data=None):
        super().__init__(data)
        self.rows = {}

    async def claim(self, keys, lease):
        rows = [self.rows.setdefault(key, asyncio.Lock()) for key in keys]
        for row in rows:
            await row.acquire()
            await asyncio.sleep(0)
        answers = await super().claim(keys, lease)
        for row in rows:
            row.release()
        return answers


@caught_by("test_a_cancelled_claim_can_be_given_up")
class TakesAfterCancelling(Unbroken):
    async def claim(self, keys, lease):
        async def take():
            await asyncio.sleep(0.002)
            return await super(TakesAfterCancelling, self).claim(keys, lease)

        self.taking = asyncio.create_task(take())
        return await asyncio.shield(self.taking)


@caught_by("test_a_cancelled_claim_can_be_repeated")
class LosesItsConnection(Unbroken):
    """A cancelled claim leaves the lock on the connection behind."""

    busy = False

    async def claim(self, keys, lease):
        while self.busy:
            await asyncio.sleep(0.001)
        self.busy = True
        await asyncio.sleep(0)
        self.busy = False
        return await super().claim(keys, lease)


@caught_by("test_cancelling_a_claim_leaves_those_beside_it_alone")
class CancelsAllThatClaim(Unbroken):
    claiming = None

    async def claim(self, keys, lease):
        if self.claiming is None or self.claiming.done():
            self.claiming = asyncio.create_task(asyncio.sleep(0.001))
        await self.claiming
        return await super().claim(keys, lease)


@caught_by("test_a_cancelled_put_gives_up_in_one_step_with_the_change")
class GivesUpBeforeItWrites(Unbroken):
    async def put(self, puts, lease=None, *, atomic=False):
        for put in puts if lease else ():
            self.give_up(put.key, lease.owner)
            await asyncio.sleep(0)
        return await super().put(puts, lease)
