"""Storages that prune too much, too little, or count it wrongly."""

from .unbroken import Unbroken, caught_by


@caught_by("test_pruning_removes_what_has_expired_and_nothing_else")
class PrunesTheLiving(Unbroken):
    async def prune(self, at_most):
        expiring = [key for key, record in self.data.items() if record.expires_at][:at_most]
        for key in expiring:
            del self.data[key]
        return sum(key != "living" for key in expiring)


@caught_by("test_pruning_removes_what_has_expired_and_nothing_else")
class CountsWhatStays(Unbroken):
    async def prune(self, at_most):
        return len([key for key in self.data if not self.find(key)][:at_most])


@caught_by("test_pruning_removes_what_has_expired_and_nothing_else")
class CountsOneOnly(Unbroken):
    async def prune(self, at_most):
        return min(await super().prune(at_most), 1)


@caught_by("test_pruning_removes_no_more_than_asked_for")
class PrunesAll(Unbroken):
    async def prune(self, at_most):
        return await super().prune(len(self.data))


@caught_by("test_pruning_removes_no_more_than_asked_for")
class CountsAsAsked(Unbroken):
    async def prune(self, at_most):
        return min(await super().prune(len(self.data)), at_most)


@caught_by("test_fewer_than_asked_for_were_all")
class NeverLooksBack(Unbroken):
    after = ""

    async def prune(self, at_most):
        names = sorted(key for key in self.data if key > self.after and not self.find(key))
        for key in names[:at_most]:
            del self.data[key]
        self.after = names[at_most - 1] if len(names) >= at_most else ""
        return min(len(names), at_most)
