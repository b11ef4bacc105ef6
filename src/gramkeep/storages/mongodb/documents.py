"""What `MongoStorage` asks of the server, over one collection; errors are the driver's own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from gramkeep.storage import ABSENT, ANY, BUSY, DELETE, Answer, Lease, Put, Record
from gramkeep.storages.driver import driver_of
from gramkeep.storages.mongodb import updates
from gramkeep.storages.mongodb.connection import Collection
from gramkeep.storages.mongodb.layout import Layout

with driver_of("mongodb"):
    from pymongo import ReturnDocument, UpdateOne
    from pymongo.errors import (
        BulkWriteError,
        DuplicateKeyError,
        OperationFailure,
        PyMongoError,
        WriteConcernError,
    )

SCAN_PAGE: Final = 500  # keys read in one go while scanning
ATTEMPTS: Final = 5  # at a document that others make or delete at the same time


class Documents:
    """The documents of one collection, in one layout."""

    def __init__(self, collection: Collection, layout: Layout) -> None:
        self._collection = collection
        self._layout = layout
        self._key = layout.key

    async def prepare(self) -> None:
        """Make the index that is missing, and remove what dead processes left."""
        if self._layout.removes_itself:
            await self._collection.create_index("remove_at", expireAfterSeconds=0)
            return
        indexes = await (await self._collection.list_indexes()).to_list()
        if all(next(iter(index["key"])) != self._key for index in indexes):
            await self._collection.create_index(self._key)
        await self._collection.delete_many(updates.left_over())

    async def read(self, keys: Sequence[str]) -> dict[str, Record]:
        """Read several sessions, as far as they are there."""
        query = {self._key: {"$in": keys}, "$expr": self._layout.alive}
        found: dict[str, Record] = {}
        async for document in self._collection.find(query):
            # grammY may have made two of one key; the first is the one that it reads
            if document[self._key] not in found:
                found[document[self._key]] = self._layout.record(document)
        return found

    async def page(self, prefix: str, after: str | None) -> list[str]:
        """Give the next keys in their order; they may go beyond those with the prefix."""
        beyond = {"$gte": prefix} if after is None else {"$gt": after}
        query = {self._key: beyond, "$expr": self._layout.alive}
        cursor = self._collection.find(query, {"_id": 0, self._key: 1})
        found = await cursor.sort(self._key).limit(SCAN_PAGE).to_list()
        return list(dict.fromkeys(document[self._key] for document in found))

    async def claim(self, key: str, lease: Lease) -> Record | Answer | None:
        """Read and take a key, in one command."""
        pipeline = updates.claim(self._layout, key, lease)
        document = None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                document = await self._update(key, pipeline, upsert=True)
            except DuplicateKeyError:  # somebody else made it at the same time
                if attempt == ATTEMPTS:
                    raise
            if document is not None:
                break
        if document is None:
            text = f"it has no document for {key!r} after it made one"
            raise PyMongoError(text)
        return self._claimed(document, lease)

    async def claim_many(
        self, keys: Sequence[str], lease: Lease
    ) -> dict[str, Record | Answer | None]:
        """Read and take several keys that weren't busy before, in two commands.

        Keys without a document are not answered, and none are if one document is in the way of
        the others. Where keys are names.
        """
        query = {self._key: {"$in": keys}}
        pipeline = updates.claim(self._layout, keys[0], lease)  # of the others it is the same
        try:
            await self._collection.update_many(query, pipeline)
        except OperationFailure:  # which one it is about shows when each is claimed alone
            return {}
        documents = await self._collection.find(query).to_list()
        return {document[self._key]: self._claimed(document, lease) for document in documents}

    async def put(self, put: Put, lease: Lease | None) -> bool:
        """Carry out a change, in one command where there is a document or the key is deleted."""
        if put.value is DELETE and not put.hold:
            condition = {"$expr": updates.may_delete(self._layout, put, lease)}
            if await self._delete(put.key, condition):
                return True
        pipeline = updates.put(self._layout, put, lease)
        for attempt in range(1, ATTEMPTS + 1):
            document = await self._update(put.key, pipeline, {"refused": 1, "empty": 1})
            if document is not None:
                if document.keys() & {"refused", "empty"}:
                    with suppress(PyMongoError):  # the next claim tidies up as well
                        await self._tidy(put.key, document)
                return "refused" not in document
            if not isinstance(put.value, bytes) or put.expected not in (ABSENT, ANY):
                break  # nothing is there, and nothing is to be stored
            try:
                await self._make(put.key, pipeline)
            except DuplicateKeyError:  # now something is there
                if attempt == ATTEMPTS:
                    raise
            else:
                return True
        return put.expected is ABSENT or put.expected is ANY

    async def put_many(self, puts: Sequence[Put], lease: Lease | None) -> set[str]:
        """Carry out several changes in one command, and give the keys of those that were done.

        Of the others nothing was done. Where keys are names.
        """
        statements = []
        for put in puts:
            # Where there is no document, one is made, which fails if a value was expected. What
            # only keeps or deletes has nothing to do there.
            is_as_asked = not isinstance(put.value, bytes) and put.expected in (ABSENT, ANY)
            pipeline = updates.put(self._layout, put, lease, or_fail=True)
            statements.append(UpdateOne({self._key: put.key}, pipeline, upsert=not is_as_asked))
        failed = await self._carry_out(statements)
        done = [put for index, put in enumerate(puts) if index not in failed]
        emptied = [put.key for put in done if not isinstance(put.value, bytes) and not put.hold]
        if emptied:
            with suppress(PyMongoError):  # the server does it as well, some time
                await self._collection.delete_many({self._key: {"$in": emptied}, **updates.NOTHING})
        return {put.key for put in done}

    async def prune(self, at_most: int) -> int:
        """Remove some expired sessions, where the server doesn't."""
        removed = 0
        if self._layout.removes_itself:
            return removed
        expired = {"value": {"$exists": True}, "$expr": {"$not": [self._layout.alive]}}
        while removed < at_most:
            left = at_most - removed
            found = await self._collection.find(expired, {"_id": 1}).limit(left).to_list()
            names = [document["_id"] for document in found]
            result = await self._collection.delete_many({"_id": {"$in": names}, **expired})
            removed += result.deleted_count  # without those that others renewed or removed
            if len(found) < left:
                break
        return removed

    def _claimed(self, document: dict[str, Any], lease: Lease) -> Record | Answer | None:
        if document.get("lease", {}).get("owner") != lease.owner:
            return BUSY
        return self._layout.record(document) if "value" in document else None

    async def _carry_out(self, statements: Sequence[UpdateOne]) -> set[int]:
        """Carry out each for itself, in one command, and say which ones failed."""
        try:
            await self._collection.bulk_write(statements, ordered=False)
        except BulkWriteError as error:
            if unconfirmed := error.details["writeConcernErrors"]:
                last = unconfirmed[-1]
                raise WriteConcernError(last["errmsg"], last["code"], last) from error
            return {failure["index"] for failure in error.details["writeErrors"]}
        return set()

    async def _update(
        self,
        key: str,
        pipeline: updates.Pipeline,
        projection: dict[str, Any] | None = None,
        *,
        upsert: bool = False,
    ) -> dict[str, Any] | None:
        """Update a document, and give what it is now."""
        return await self._collection.find_one_and_update(
            {self._key: key},
            pipeline,
            projection,
            upsert=upsert,
            return_document=ReturnDocument.AFTER,
        )

    async def _make(self, key: str, pipeline: updates.Pipeline) -> None:
        # It finds nothing that holds anything, so that it either makes a document or, where one
        # was made meanwhile, raises.
        await self._collection.update_one(
            {self._key: key, **updates.NOTHING},
            updates.make(self._layout, key, pipeline),
            upsert=True,
        )

    async def _delete(self, key: str, condition: dict[str, Any]) -> bool:
        result = await self._collection.delete_one({self._key: key, **condition})
        return result.deleted_count == 1

    async def _tidy(self, key: str, document: dict[str, Any]) -> None:
        if "empty" in document:
            await self._delete(key, updates.NOTHING)
        else:
            await self._collection.update_one({self._key: key}, {"$unset": {"refused": ""}})
