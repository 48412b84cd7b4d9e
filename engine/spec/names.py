"""The mapping file of structure names: what each structure is to be called, and what it is."""

from pathlib import Path

from pydantic import Field

from engine.model.case import StructureKind
from engine.spec.base import Spec
from engine.spec.reading import read_spec


class Rename(Spec):
    """What a structure becomes."""

    name: str = Field(min_length=1, max_length=64, description="the new name; the same as before keeps it")
    kind: StructureKind | None = Field(
        None, description="EXTERNAL, TARGET, ORGAN or OTHER; as it was if absent"
    )


class NamesSpec(Spec):
    """A mapping file: under [structures], one line for each structure, by the name it has in the source."""

    structures: dict[str, Rename] = Field(description="by the name in the source")


def load_names(path: Path) -> NamesSpec:
    """Read and validate a mapping file.

    Raises
    ------
    StudyError
        As `engine.spec.reading.read_spec` does.
    """
    return read_spec(path, NamesSpec, "a mapping of structure names")
