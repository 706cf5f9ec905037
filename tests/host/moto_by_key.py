"""moto's server, which finds an item by its key, where moto's own compares all items of a table for each query.

With thousands of conversations that, and asking each value for the nine kinds that it is not, was most of the time.
"""

import copy
import sys
from typing import Any

from moto.core.serialize import ResponseSerializer
from moto.dynamodb.models.table import Table
from moto.server import main

query = Table.query
serialize_member = ResponseSerializer._serialize_structure_member


def query_by_key(table: Any, hash_key: Any, *arguments: Any, **options: Any) -> Any:
    """Ask a table that holds no more than the items of a key."""
    if table.all_indexes():
        return query(table, hash_key, *arguments, **options)
    part = copy.copy(table)
    part.items = {key: items for key, items in [(hash_key, table.items.get(hash_key))] if items is not None}
    return query(part, hash_key, *arguments, **options)


def serialize_what_is_there(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
    """Pass over the kinds that a value of an item is not."""
    if shape.parent.name != "AttributeValue" or not isinstance(value, dict) or key in value:
        serialize_member(serializer, serialized, value, shape, key)


Table.query = query_by_key
ResponseSerializer._serialize_structure_member = serialize_what_is_there

if __name__ == "__main__":
    sys.exit(main())
