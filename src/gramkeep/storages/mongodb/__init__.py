"""Sessions in MongoDB: one document each, claimed and changed by one command each.

What must be decided and done in one step is an update by an aggregation pipeline, which the server
carries out by itself and by its own clock. A retry that the driver makes on its own, as it does
with replica sets, is answered as the first attempt was. What is stored is its own token: writes
compare it, whoever wrote it.
"""

from gramkeep.storages.mongodb.storage import MongoStorage

__all__ = ["MongoStorage"]
