"""Words of the report that are made from the study."""

from pathlib import Path

from engine.spec.study import load_study
from flows.telling import fields_in_words

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_fields_name_every_target_that_beamlets_cover() -> None:
    several = fields_in_words(load_study(EXAMPLES / "openkbp_head_and_neck.toml"))
    assert several.startswith(
        "beamlets over the projection of PTV_7000, PTV_6300 and PTV_5600 and up to 5 mm"
    )
    one = fields_in_words(load_study(EXAMPLES / "tg119_cshape.toml"))
    assert "beyond it" in one
