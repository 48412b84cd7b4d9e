"""Keys of a function that stand beside the other keys of a table, as people write objectives and constraints."""

from collections.abc import Container
from typing import Any

from pydantic import BaseModel


def gather_function(values: Any, own_keys: Container[str]) -> Any:
    """Return a table with its function's keys in a table of their own; what is no flat table comes back as it is.

    Parameters
    ----------
    values
        The table as it was written.
    own_keys
        The keys that are not the function's.
    """
    if not isinstance(values, dict) or isinstance(values.get("function"), dict | BaseModel):
        return values
    own = {
        # What a validator has touched is no longer JSON to pydantic, where an array may be a tuple.
        key: tuple(value) if isinstance(value, list) else value
        for key, value in values.items()
        if key in own_keys and key != "function"
    }
    rest = {key: value for key, value in values.items() if key not in own_keys}
    return {**own, "function": {"kind": values.get("function"), **rest}}
