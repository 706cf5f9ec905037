"""Why a store refuses a conversation, in words that hold nothing of it; and how DynamoDB's store keeps numbers."""

import decimal
from typing import Any

from extras.cli.output import told

_DYNAMO_PLACES = decimal.Decimal(10) ** -9

_BY_NAME = {
    "Inexact": "a number in it has more digits than the 38 that DynamoDB keeps",
    "Rounded": "a number in it has more digits than the 38 that DynamoDB keeps",
    "InvalidOperation": "a number in it has more digits than Rasa's store for DynamoDB can round",
    "OverflowError": "a whole number in it is larger than the 8 bytes that MongoDB keeps",
    "InvalidDocument": "it has a field that MongoDB cannot keep",
    "DocumentTooLarge": "it is larger than the 16 MB that MongoDB keeps of a conversation",
    "UnicodeEncodeError": "it holds half of a character (a lone surrogate), which the store cannot encode",
    "InvalidStringData": "it holds half of a character (a lone surrogate), which the store cannot encode",
    "DataError": "the sender id, or the name of an intent or action, is longer than the store's column",
}

_BY_MONGO_CODE = {
    52: "a name in it begins with '$', which MongoDB takes from 5.0 on",
    57: "a name in it has a '.', which MongoDB takes from 3.6 on",
    17419: "it is larger than the 16 MB that MongoDB keeps of a conversation",
}

_BY_TEXT = {
    "Item size": "it is larger than the 400 kB that DynamoDB keeps of a conversation",
    "Infinity and NaN": "a number in it is infinite, or none, which DynamoDB does not keep",
    "Float types are not": "a number in it is infinite, or none, which DynamoDB does not keep",
    "NUL": "its sender id, or the name of an intent or action, holds a NUL, which PostgreSQL does not keep",
    "null character": "a name in it holds a NUL, which MongoDB does not keep",
}
"""By a part of what the libraries of the stores say in all their versions, which itself may repeat what is stored."""


def reason(error: BaseException) -> str:
    """Return why a conversation could not be read or written, and what kind of error said so."""
    name, code = type(error).__name__, getattr(error, "code", None)
    known = next((words for part, words in _BY_TEXT.items() if part in str(error)), None)
    if known is None and isinstance(code, int):
        known = _BY_MONGO_CODE.get(code)
    known = known or _BY_NAME.get(name)
    if known is not None:
        return f"{known} ({name})"
    response = getattr(error, "response", None)  # of botocore
    if isinstance(response, dict):
        return f"{name} {response.get('Error', {}).get('Code', '')}".strip()
    return told(error)


def rounded(value: Any) -> Any:
    """Return a JSON value as it comes back from Rasa's store for DynamoDB: all numbers floats, of 9 digits at most.

    The same decimal rounding as ``replace_floats_with_decimals`` of ``rasa.core.utils``: half to even, on the digits
    that JSON has, where ``round()`` would go by the binary number.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        try:
            return float(decimal.Decimal(repr(value)).quantize(_DYNAMO_PLACES))
        except decimal.InvalidOperation:  # too large to be rounded, or none: the store refuses it
            return value
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return value
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, (list, tuple)) else value
