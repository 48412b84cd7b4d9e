"""The keys of a study file as text, from the models that validate it."""

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from engine.optimise.functions import Function
from engine.spec.study import Study
from engine.structures.recipes import Recipe


def list_keys() -> str:
    """Return every table and key with type, default and meaning."""
    lines: list[str] = []
    _describe(Study, "", lines)
    return "\n".join(lines)


def _describe(model: type[BaseModel], table: str, lines: list[str]) -> None:
    nested: list[tuple[type[BaseModel], str]] = []
    if table:
        lines.extend(["", f"{table}    {(model.__doc__ or '').strip().splitlines()[0]}"])
    for name, field in model.model_fields.items():
        if name == "make":  # stands in the heading
            continue
        inner = _model_in(field.annotation)
        if name == "function":
            lines.append("  function = one of:")
            for kind in get_args(get_args(Function)[0]):
                keys = ", ".join(key for key in kind.model_fields if key != "kind") or "no further keys"
                lines.append(f"      {kind.model_fields['kind'].default:20} {keys}")
            continue
        if name == "structures":
            nested.extend(
                (kind, f'[[structures]]  make = "{_tag(kind)}"') for kind in get_args(get_args(Recipe)[0])
            )
            continue
        if inner is not None:
            many = get_origin(field.annotation) is tuple
            path = f"{table.strip('[]')}.{name}" if table else name
            nested.append((inner, f"[[{path}]]" if many else f"[{path}]"))
            continue
        default = "needed" if field.is_required() else f"default {_plain(field.default)}"
        lines.append(
            f"  {name:22} {_type(field.annotation):28} {default:18} {field.description or ''}".rstrip()
        )
    for inner, path in nested:
        _describe(inner, path, lines)


def _tag(kind: type[BaseModel]) -> str:
    return str(get_args(kind.model_fields["make"].annotation)[0])


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, Union, UnionType, Annotated):
        for part in get_args(annotation):
            found = _model_in(part)
            if found is not None:
                return found
    return None


def _type(annotation: Any) -> str:
    text = str(annotation) if get_origin(annotation) else getattr(annotation, "__name__", str(annotation))
    for long, short in (("typing.", ""), ("pathlib.", ""), ("Literal", ""), (" | None", "")):
        text = text.replace(long, short)
    return text


def _plain(value: Any) -> str:
    return "none" if value is None or value is PydanticUndefined else repr(value)
