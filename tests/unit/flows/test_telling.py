"""Words of the report that are made from the study."""

from pathlib import Path

from engine.model.scenario import Scenario
from engine.optimise.generation import Generation, Round
from engine.spec.study import load_study
from flows.generation import round_in_words
from flows.telling import fields_in_words, generation_summary

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_fields_name_every_target_that_beamlets_cover() -> None:
    several = fields_in_words(load_study(EXAMPLES / "openkbp_head_and_neck.toml"))
    assert several.startswith(
        "beamlets over the projection of PTV_7000, PTV_6300 and PTV_5600 and up to 5 mm"
    )
    one = fields_in_words(load_study(EXAMPLES / "tg119_cshape.toml"))
    assert "beyond it" in one


SCENARIOS = (Scenario("nominal"), Scenario("+x"), Scenario("-x"))
FIRST = Round((0,), (0,), True, 45, None, 120.5, 1, None)
LAST = Round((0, 1), (1,), False, 312, 100.25, 100.25, 1, 99.0)


def test_rounds_of_scenario_generation_are_told_by_name_and_with_the_matrices_that_were_built() -> None:
    told = generation_summary(Generation((FIRST, LAST), 3, "of the gap"), SCENARIOS)
    assert (told.n_built, told.n_scenario) == (2, 3)
    assert [of_round.added for of_round in told.rounds] == [("nominal",), ("+x",)]
    assert [of_round.purpose for of_round in told.rounds] == ["to find scenarios", "to find the plan"]
    assert told.rounds[1].worst_scenario == "+x"


def test_a_round_of_scenario_generation_is_told_in_a_line_with_what_is_proven_by_then() -> None:
    assert round_in_words(FIRST, SCENARIOS) == (
        "1 of 3 scenarios, new 'nominal'; 45 evaluations; objective over all 120.5, most of it in '+x'"
    )
    assert round_in_words(LAST, SCENARIOS).endswith("; no plan is below 99, which is 1.25 % less")
