"""The study's patient: which case, and how its HU become electron density."""

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from engine.phantoms import PHANTOMS
from engine.spec.base import Spec


class CaseSpec(Spec):
    """Which patient or phantom, and how its HU become electron density."""

    phantom: str | None = Field(
        None, description="name of a built-in phantom (see `nightbeam phantom --help`)"
    )
    dicom: Path | None = Field(None, description="folder with a CT series and its structure set")
    imported: str | None = Field(
        None, description="name of a case that `nightbeam import` put into the store"
    )
    series_uid: str | None = Field(None, description="which CT series, if the folder holds several")
    external: str | None = Field(None, description="name of the body outline, if its type is not EXTERNAL")
    hu_table: str = Field(description="'phantom' for built-in phantoms, or a CSV file of the scanner's table")

    @field_validator("hu_table")
    @classmethod
    def _a_table_for_patients(cls, hu_table: str, info: ValidationInfo) -> str:
        patient = any(info.data.get(key) is not None for key in ("dicom", "imported"))
        if hu_table == "phantom" and patient and info.data.get("phantom") is None:
            raise ValueError(
                "'phantom' is the table of the built-in phantoms (there is no default table for a patient); "
                "give a CSV file with the table of the scanner"
            )
        return hu_table

    @field_validator("phantom")
    @classmethod
    def _known(cls, phantom: str | None) -> str | None:
        if phantom is not None and phantom not in PHANTOMS:
            raise ValueError(f"there is no phantom '{phantom}'; known are {', '.join(PHANTOMS)}")
        return phantom

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.series_uid is not None and self.dicom is None:
            raise ValueError("series_uid is for dicom alone; leave it out")
        given = [name for name in ("phantom", "dicom", "imported") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of phantom, dicom and imported (given: {given or 'none'})")
        return self
