"""The batch file: which cases, which protocols, and what the night may cost."""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from engine.phantoms import PHANTOMS, TISSUE_PHANTOMS
from engine.spec.base import Spec
from engine.spec.case import CaseSpec, OutsideSpec, OverrideSpec
from engine.spec.reading import read_spec

What = Literal["plan", "pareto"]
_OWN_KEYS = ("name", "priority", "protocols")
_SOURCES = ("imported", "dicom", "phantom")


class NightSpec(Spec):
    """What one night may cost; cases that are running when it is used up go on to their end."""

    stop_starting_at: str | None = Field(
        None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="time of day after which no case is started, such as '06:30'",
    )
    hours: float | None = Field(None, gt=0.0, description="the same, counted from the begin of the batch")
    node_hours: float | None = Field(
        None, gt=0.0, description="no case is started when so many node hours are used"
    )
    core_hours: float | None = Field(
        None, gt=0.0, description="no case is started when so many core hours are used"
    )


class BatchCase(Spec):
    """One case with settings of its own; keys that are not listed here are those of a study's [case]."""

    imported: str | None = Field(
        None, description="name of a case that `nightbeam import` put into the store"
    )
    dicom: Path | None = Field(None, description="folder with a CT series and its structure set")
    phantom: str | None = Field(None, description="name of a built-in phantom")
    name: str | None = Field(
        None, min_length=1, max_length=100, description="for page and folders; absent: that of the source"
    )
    priority: int = Field(0, description="higher ones are started first")
    protocols: tuple[str, ...] | None = Field(
        None, min_length=1, description="which of the batch's protocols; all if absent"
    )
    hu_table: str | None = Field(None, description="instead of the batch's")
    series: str | None = None
    structure_set: str | None = None
    second: tuple[str, ...] = ()
    external: str | None = None
    outside: tuple[OutsideSpec, ...] = ()
    overrides: tuple[OverrideSpec, ...] = ()

    @model_validator(mode="after")
    def _is_a_case(self) -> Self:
        self.case_table(self.hu_table or "any.csv")
        return self

    @property
    def source(self) -> str:
        """Name of the source: of a folder, its last part."""
        return self.imported or self.phantom or (self.dicom.resolve().name if self.dicom else "")

    def hu_table_or(self, of_batch: str | None) -> str | None:
        """Return the HU table: the case's own, the batch's, or that of a phantom whose materials are known."""
        built_in = self.phantom is not None and self.phantom not in TISSUE_PHANTOMS
        return self.hu_table or ("phantom" if built_in else of_batch)

    def case_table(self, hu_table: str) -> dict[str, Any]:
        """Return the table [case] of a study of this case.

        Raises
        ------
        ValueError
            If a study would not take it.
        """
        table = self.model_dump(mode="json", exclude_defaults=True, exclude=set(_OWN_KEYS))
        table["hu_table"] = hu_table
        try:
            CaseSpec.model_validate_json(json.dumps(table))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(first["msg"].removeprefix("Value error, ")) from None
        return table


class Batch(Spec):
    """Many cases and some protocols. Give cases in the lists imported, dicom and phantoms, or as [[cases]]."""

    keys_command: ClassVar[str] = "nightbeam batch --keys"

    protocols: tuple[Path, ...] = Field(
        min_length=1, description="study files; all but their [case] holds for every case"
    )
    what: What = Field("plan", description="a plan, or a Pareto front, of each")
    hu_table: str | None = Field(None, description="file, for cases that name no other; none for phantoms")
    imported: tuple[str, ...] = Field(
        (), description="names of cases that `nightbeam import` put into the store"
    )
    dicom: tuple[str, ...] = Field(
        (), description="folders, one a case; 'incoming/*' is every folder in incoming"
    )
    phantoms: tuple[str, ...] = Field((), description="names of built-in phantoms")
    cases: tuple[BatchCase, ...] = Field((), description="cases with settings of their own")
    cases_at_once: int = Field(
        2, ge=1, le=1000, description="cases that are computed at the same time; they share local workers"
    )
    retries: int = Field(
        1, ge=0, le=100, description="how often a case that was lost (killed, no cluster) is started again"
    )
    night: NightSpec = NightSpec()

    @field_validator("protocols")
    @classmethod
    def _names_differ(cls, protocols: tuple[Path, ...]) -> tuple[Path, ...]:
        names = [path.stem for path in protocols]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two protocols are called '{name}'; rename one of the files")
        return protocols

    @field_validator("phantoms")
    @classmethod
    def _known(cls, phantoms: tuple[str, ...]) -> tuple[str, ...]:
        for name in phantoms:
            if name not in PHANTOMS:
                raise ValueError(f"there is no phantom '{name}'; known are {', '.join(PHANTOMS)}")
        return phantoms

    @field_validator("cases")
    @classmethod
    def _protocols_are_there(
        cls, cases: tuple[BatchCase, ...], info: ValidationInfo
    ) -> tuple[BatchCase, ...]:
        known = [path.stem for path in info.data.get("protocols", ())]
        for case in cases:
            for name in case.protocols or ():
                if name not in known and known:
                    raise ValueError(
                        f"case '{case.source}' wants the protocol '{name}'; protocols has {', '.join(known)} "
                        "(the file's name without .toml)"
                    )
        return cases

    @model_validator(mode="after")
    def _any_case(self) -> Self:
        if not (self.imported or self.dicom or self.phantoms or self.cases):
            raise ValueError("no case is given; list some in imported, dicom or phantoms, or as [[cases]]")
        return self


def read_batch(path: Path) -> Batch:
    """Read and validate a batch file.

    Raises
    ------
    StudyError
        As `engine.spec.reading.read_spec` does.
    """
    return read_spec(path, Batch, "a batch")
