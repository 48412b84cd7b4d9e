"""The study's patient: which case, and how its HU become electron density."""

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from engine.phantoms import PHANTOMS, TISSUE_PHANTOMS
from engine.spec.base import Spec


class _DensitySpec(Spec):
    """A density given by number or by HU."""

    structure: str
    relative_electron_density: float | None = Field(
        None, ge=0.0, le=25.0, description="relative to water; 0.00108 is air"
    )
    hu: float | None = Field(None, ge=-1024.0, le=60000.0, description="looked up in the HU table")


class OutsideSpec(_DensitySpec):
    """A structure outside the body that radiation passes, such as the couch; from the CT if no density is given."""

    @model_validator(mode="after")
    def _one_density(self) -> Self:
        if self.relative_electron_density is not None and self.hu is not None:
            raise ValueError("give relative_electron_density or hu, or neither to take the CT's")
        return self


class OverrideSpec(_DensitySpec):
    """A structure whose density is set, whatever the CT says; of several, the last one holds."""

    reason: str = Field(min_length=3, description="why, for the report")

    @model_validator(mode="after")
    def _one_density(self) -> Self:
        if (self.relative_electron_density is None) == (self.hu is None):
            raise ValueError("give either relative_electron_density or hu")
        return self


class CaseSpec(Spec):
    """Which patient or phantom, and how its HU become electron density."""

    phantom: str | None = Field(
        None, description="name of a built-in phantom (see `nightbeam phantom --help`)"
    )
    dicom: Path | None = Field(None, description="folder with a CT series and its structure set")
    imported: str | None = Field(
        None, description="name of a case that `nightbeam import` put into the store"
    )
    series: str | None = Field(
        None,
        description="which CT series, if the folder holds several: UID, number, or a part of its description",
    )
    structure_set: str | None = Field(
        None, description="which structure set, if the folder holds several: UID, or a part of its label"
    )
    second: tuple[str, ...] = Field(
        (),
        description="which MR, PET or further CT series to keep, instead of all MR and PET that can be placed",
    )
    external: str | None = Field(None, description="name of the body outline, if its type is not EXTERNAL")
    hu_table: str = Field(
        description="'phantom' for built-in phantoms, or a file: CSV table, or TOML with two lines or a calibration"
    )
    outside: tuple[OutsideSpec, ...] = ()
    overrides: tuple[OverrideSpec, ...] = ()

    @field_validator("hu_table")
    @classmethod
    def _a_table_for_patients(cls, hu_table: str, info: ValidationInfo) -> str:
        patient = any(info.data.get(key) is not None for key in ("dicom", "imported"))
        if hu_table == "phantom" and patient and info.data.get("phantom") is None:
            raise ValueError(
                "'phantom' is the table of the built-in phantoms (there is no default table for a patient); "
                "give a file with the table of the scanner"
            )
        if hu_table == "phantom" and info.data.get("phantom") in TISSUE_PHANTOMS:
            raise ValueError(
                f"'phantom' is a straight line, but '{info.data['phantom']}' has the Hounsfield units of a scanner "
                "(its bones would be too dense); give 'hu_tables/tissue_phantoms.csv' of the examples"
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
        given = [name for name in ("phantom", "dicom", "imported") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of phantom, dicom and imported (given: {given or 'none'})")
        source = given[0]
        of_folder = [name for name in ("series", "structure_set", "second") if getattr(self, name)]
        if of_folder and source != "dicom":
            raise ValueError(
                f"{' and '.join(of_folder)} can be given with dicom only ({source} has no choice to make"
                f"{': it was made by `nightbeam import`' if source == 'imported' else ''}); take it out"
            )
        if self.external is not None and source == "phantom":
            raise ValueError(
                "external cannot be given with phantom (a phantom knows its outline); take it out"
            )
        return self

    def density_names(self) -> list[tuple[str, str]]:
        """Return every structure whose density is said here, with the key that names it."""
        return [
            (f"case.{key}[{number}].structure", entry.structure)
            for key, entries in (("outside", self.outside), ("overrides", self.overrides))
            for number, entry in enumerate(entries)
        ]
