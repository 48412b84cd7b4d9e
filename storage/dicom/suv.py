"""Standardised uptake values of positron emission tomography (PET)."""

from datetime import datetime, timedelta

from pydicom.dataset import Dataset


def suv_factor(dataset: Dataset) -> tuple[float, str]:
    """Return by what to multiply Bq/ml to get the standardised uptake value by body weight, and why not if it is 0.

    SUV = activity concentration · body weight / injected activity, in (Bq/ml) · g / Bq = g/ml. The injected activity
    is that at the time to which the pixels were corrected for decay: Decay Correction START, the start of the scan, to
    which it decays from the injection on; ADMIN, the injection itself (PS3.3 C.8.9.1, Decay Correction). Pixels must be
    corrected for decay and attenuation. This is the computation that the Quantitative Imaging Biomarkers Alliance lays
    down (FDG-PET/CT profile, "SUV vendor neutral pseudocode"). Its branches that need private attributes are not taken:
    a series made after the acquisition (Series Time after Acquisition Time) stays in Bq/ml.
    """
    corrected = dataset.get("CorrectedImage") or ()
    corrected = {corrected} if isinstance(corrected, str) else set(corrected)
    if not {"ATTN", "DECY"} <= corrected:
        return 0.0, "it is not corrected for decay and attenuation"
    infos = dataset.get("RadiopharmaceuticalInformationSequence") or []
    info = infos[0] if len(infos) == 1 else Dataset()
    weight_kg = _positive(dataset, "PatientWeight")
    dose_bq = _positive(info, "RadionuclideTotalDose")
    half_life_s = _positive(info, "RadionuclideHalfLife")
    for what, value in (("weight", weight_kg), ("injected activity", dose_bq), ("half-life", half_life_s)):
        if not value:
            return 0.0, f"it says no {what}"
    correction = str(dataset.get("DecayCorrection") or "")
    if correction == "ADMIN":
        return 1000.0 * weight_kg / dose_bq, ""
    if correction != "START":
        return 0.0, "it does not say to what time it is corrected for decay"
    scan = _moment(dataset, "SeriesDate", "SeriesTime")
    acquired = _moment(dataset, "AcquisitionDate", "AcquisitionTime")
    injected = _date_time(str(info.get("RadiopharmaceuticalStartDateTime") or ""))
    if injected is None and scan is not None:
        time = str(info.get("RadiopharmaceuticalStartTime") or "")
        injected = _date_time(f"{scan:%Y%m%d}{time}") if time else None
        if injected is not None and injected > scan:  # over midnight
            injected -= timedelta(days=1)
    if scan is None or acquired is None or injected is None:
        return 0.0, "it does not say when it was taken and when the activity was injected"
    if scan > acquired:
        return 0.0, "it was made after the acquisition, so the time of its decay correction is not known"
    elapsed_s = (scan - injected).total_seconds()
    if not 0.0 <= elapsed_s < 86400.0:
        return 0.0, "its times of injection and scan contradict each other"
    return 1000.0 * weight_kg / (dose_bq * 2.0 ** (-elapsed_s / half_life_s)), ""


def _positive(dataset: Dataset, keyword: str) -> float:
    """Return a positive number, or 0 if there is none."""
    try:
        number = float(dataset.get(keyword) or 0.0)
    except (TypeError, ValueError):
        return 0.0
    return number if 0.0 < number < float("inf") else 0.0


def _moment(dataset: Dataset, date: str, time: str) -> datetime | None:
    """Return a date and a time of day as one."""
    if not dataset.get(date) or not dataset.get(time):
        return None
    return _date_time(f"{dataset.get(date)}{dataset.get(time)}")


def _date_time(text: str) -> datetime | None:
    """Return a DICOM date and time (PS3.5 table 6.2-1), without zone and to the second or its fractions."""
    digits = text.split("+")[0].split("-")[0].strip()
    for form in ("%Y%m%d%H%M%S.%f", "%Y%m%d%H%M%S", "%Y%m%d%H%M"):
        try:
            return datetime.strptime(digits, form)
        except ValueError:
            continue
    return None
