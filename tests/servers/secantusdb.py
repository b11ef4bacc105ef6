"""The program of `servers.mongodb`: SecantusDB, made quick enough for a thousand sessions.

As it comes, it reads the whole collection for each ``findAndModify``, and for each query that has
an ``$expr`` beside the key; and each write goes through the answers to the last ten thousand, which
it keeps for drivers that ask again. What it answers is the same: a lookup only says which documents
are tried, and each is compared with the whole query afterwards; and drivers ask again at once.
"""

import sys
from typing import Any

from secantus import transactions
from secantus.cli import main
from secantus.storage import Storage

ANSWERS_KEPT = 100

_look_up = Storage._try_index_id_keys


def _look_up_by_fields(
    self: Storage, db: str, coll: str, query: dict[str, Any], **options: Any
) -> Any:
    fields = {name: value for name, value in query.items() if not name.startswith("$")}
    return _look_up(self, db, coll, fields, **options)


if __name__ == "__main__":
    Storage._try_index_id_keys = _look_up_by_fields
    assert transactions._RETRYABLE_RECORD_MAX
    transactions._RETRYABLE_RECORD_MAX = ANSWERS_KEPT
    sys.exit(main())
