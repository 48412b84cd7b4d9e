"""The keys of a study or experiment file as text, from the models that validate it."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from engine.optimise.functions import Eqd2, Function
from engine.spec.constraints import ConstraintSpec
from engine.spec.study import Study

_FUNCTIONS_OF_CONSTRAINTS = (
    "  function = one of those of [[objectives]], with its keys; where at_most or at_least limits a dose that the",
    "      function stands for, dose_gy and limit are left out",
)


def list_keys(root: type[BaseModel] = Study) -> str:
    """Return every table and key with type, default and meaning."""
    lines: list[str] = []
    _describe(root, "", lines)
    return "\n".join(lines)


def _describe(model: type[BaseModel], table: str, lines: list[str]) -> None:
    """Add a table's keys; of one that is a choice of several, the key that chooses stands in the heading."""
    nested: list[tuple[type[BaseModel], str]] = []
    if table:
        lines.extend(["", f"{table}    {(model.__doc__ or '').strip().splitlines()[0]}"])
    for name, field in model.model_fields.items():
        if f'  {name} = "' in table:
            continue
        tables = _models_in(field.annotation)
        if name == "function":
            lines.extend(_describe_functions() if model is not ConstraintSpec else _FUNCTIONS_OF_CONSTRAINTS)
            continue
        # A key that takes a list or a table, such as edges, is listed as a key.
        listed = any(get_origin(part) is tuple for part in get_args(field.annotation))
        if tables and not listed:
            path = f"{table.strip('[]')}.{name}" if table else name
            outer: Any = get_origin(field.annotation)
            header = {tuple: f"[[{path}]]", dict: f"[{path}.NAME]"}.get(outer, f"[{path}]")
            several = len(tables) > 1
            nested.extend((model, header + (_choice(model) if several else "")) for model in tables)
            continue
        default = "needed" if field.is_required() else f"default {_plain(field.default)}"
        lines.append(
            f"  {name:22} {_type(field.annotation):28} {default:18} {field.description or ''}".rstrip()
        )
    for inner, path in nested:
        _describe(inner, path, lines)


def _describe_functions() -> list[str]:
    """Return every function with its keys, and what each key means; of one name, it may mean several things."""
    lines = ["  function = one of (keys in brackets may be left out):"]
    meanings: dict[str, dict[str | None, None]] = {}
    for kind in get_args(get_args(Function)[0]):
        fields = {key: field for key, field in kind.model_fields.items() if key != "kind"}
        keys = ", ".join(key if field.is_required() else f"[{key}]" for key, field in fields.items())
        lines.append(f"      {kind.model_fields['kind'].default:20} {keys}")
        for key, field in fields.items():
            meanings.setdefault(key, {})[field.description] = None
    inside = {f"eqd2.{key}": {field.description: None} for key, field in Eqd2.model_fields.items()}
    lines.append("  keys of functions:")
    for key, told in sorted({**meanings, **inside}.items()):
        lines.extend(f"      {key:20} {meaning}" for meaning in told)
    return lines


def _choice(model: type[BaseModel]) -> str:
    """Return the key that chooses this table among several, such as what a structure is made by."""
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
            return f'  {name} = "{get_args(field.annotation)[0]}"'
    return ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the tables that a key takes, such as every shape of an insert."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (tuple, dict, Union, UnionType, Annotated):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def _type(annotation: Any) -> str:
    tables = _models_in(annotation)
    if tables:
        keys = ", ".join(key for table in tables for key in table.model_fields)
        return f"{_type(get_args(annotation)[0])} or {{ {keys} }}"
    text = str(annotation) if get_origin(annotation) else getattr(annotation, "__name__", str(annotation))
    for long, short in (("typing.", ""), ("pathlib.", ""), ("Literal", ""), (" | None", "")):
        text = text.replace(long, short)
    return text


def _plain(value: Any) -> str:
    return "none" if value is None or value is PydanticUndefined else repr(value)
