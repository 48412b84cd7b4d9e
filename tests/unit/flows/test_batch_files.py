"""The batch file, and the study files and digests that are made of it."""

import shutil
import tomllib
from pathlib import Path

import pytest

from engine.errors import StudyError
from engine.spec.study import load_study
from flows.batch.inputs import digest_of_job
from flows.batch.jobs import list_jobs
from flows.batch.spec import read_batch
from flows.cases import NAME
from storage.store import Store
from tests.e2e.small_study import STUDY

EXAMPLES = Path(__file__).parents[3] / "examples"
TABLE = "-1000,0.001\n0,1.0\n3000,2.5\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small.toml").write_text(STUDY)
    (tmp_path / "scanner.csv").write_text("hu,relative_electron_density\n" + TABLE)
    return tmp_path


def jobs_of(folder, text, name="night.toml"):
    (folder / name).write_text(text)
    return list_jobs(read_batch(folder / name), folder, folder / "out")


def test_the_smallest_file_makes_a_case_of_every_folder(folder):
    for name in ("anna", "bert"):
        (folder / "incoming" / name).mkdir(parents=True)
    jobs = jobs_of(folder, 'protocols = ["small.toml"]\nhu_table = "scanner.csv"\ndicom = ["incoming/*"]\n')
    assert [job.name for job in jobs] == ["anna / small", "bert / small"]
    case = tomllib.loads(jobs[0].study)["case"]
    assert case == {"dicom": str(folder / "incoming/anna"), "hu_table": str(folder / "scanner.csv")}
    assert jobs[0].folder == folder / "out/anna/small"


def test_two_folders_of_one_name_are_two_cases_and_one_folder_found_twice_is_one(folder):
    for name in ("new/anna", "old/anna", "new/.trash"):
        (folder / name).mkdir(parents=True)
    jobs = jobs_of(
        folder,
        'protocols = ["small.toml"]\nhu_table = "scanner.csv"\ndicom = ["new/*", "old/*", "*/ann?"]\n',
    )
    assert [tomllib.loads(job.study)["case"]["dicom"] for job in jobs] == [
        str(folder / name) for name in ("new/anna", "old/anna")
    ]
    assert len({job.case for job in jobs}) == 2
    assert all(job.case.startswith("anna-") for job in jobs)


def test_an_empty_folder_does_not_keep_other_cases_from_their_night(folder):
    (folder / "incoming").mkdir()
    jobs = jobs_of(
        folder,
        'protocols = ["small.toml"]\nhu_table = "scanner.csv"\ndicom = ["incoming/*"]\nimported = ["anna"]\n',
    )
    assert [job.case for job in jobs] == ["anna"]


def test_everything_but_case_and_name_comes_from_the_protocol(folder):
    (job,) = jobs_of(folder, 'protocols = ["small.toml"]\nhu_table = "scanner.csv"\nimported = ["anna"]\n')
    made, protocol = tomllib.loads(job.study), tomllib.loads(STUDY)
    assert made.pop("name") == "anna: small"
    assert made.pop("case") == {"imported": "anna", "hu_table": str(folder / "scanner.csv")}
    assert made == {key: value for key, value in protocol.items() if key not in ("name", "case")}
    (folder / "made.toml").write_text(job.study)
    load_study(folder / "made.toml")


def test_a_protocol_needs_no_case(folder):
    head, _, rest = STUDY.partition("[case]")
    (folder / "small.toml").write_text(head + rest.partition('hu_table = "phantom"\n')[2])
    (job,) = jobs_of(folder, 'protocols = ["small.toml"]\nphantoms = ["water-box"]\n')
    assert tomllib.loads(job.study)["case"] == {"phantom": "water-box", "hu_table": "phantom"}


def test_a_case_has_its_own_priority_protocols_table_and_overrides(folder):
    shutil.copy(folder / "small.toml", folder / "other.toml")
    jobs = jobs_of(
        folder,
        'protocols = ["small.toml", "other.toml"]\nhu_table = "scanner.csv"\nimported = ["anna"]\n'
        '[[cases]]\nimported = "bert"\nname = "Bert 2"\npriority = 3\nprotocols = ["other"]\n'
        '[[cases.overrides]]\nstructure = "Clip"\nhu = 0.0\nreason = "artefact"\n',
    )
    assert [job.name for job in jobs] == ["Bert_2 / other", "anna / small", "anna / other"]
    override = {"structure": "Clip", "hu": 0.0, "reason": "artefact"}
    assert tomllib.loads(jobs[0].study)["case"]["overrides"] == [override]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('protocols = ["small.toml"]\n', "no case is given"),
        ('protocols = ["small.toml"]\nimported = ["anna"]\n', "case 'anna' has no HU table"),
        ('protocols = ["small.toml"]\nphantoms = ["water-boxx"]\n', "line 2: phantoms: there is no phantom"),
        ('protocols = ["small.toml", "sub/small.toml"]\nphantoms = ["water-box"]\n', "called 'small'"),
        ('protocols = ["lost.toml"]\nphantoms = ["water-box"]\n', "cannot read the file"),
        ('protocols = ["small.toml"]\nphantoms = ["water-box", "water-box"]\n', "two cases are called"),
        ('protocols = ["small.toml"]\nhu_table = "scanner.csv"\ndicom = ["in/*"]\n', "in is no folder"),
        ('protocols = ["small.toml"]\nhu_table = "scanner.csv"\ndicom = ["*/"]\n', "no case is there now"),
        ('protocols = ["small.toml"]\nhu_table = "lost.csv"\nphantoms = ["water-box"]\n', "there is no file"),
        (
            'protocols = ["small.toml"]\n[[cases]]\nphantom = "water-box"\nprotocols = ["x"]\n',
            "wants the protocol 'x'; protocols has small",
        ),
        (
            'protocols = ["small.toml"]\n[[cases]]\npriority = 1\n',
            "line 2: cases[0]: give exactly one of phantom, dicom and imported",
        ),
        (
            'protocols = ["small.toml"]\nphantoms = ["water-box"]\n[night]\nstop_starting_at = "6:30"\n',
            "line 4: night.stop_starting_at",
        ),
    ],
)
def test_a_mistake_is_told(folder, text, told):
    with pytest.raises(StudyError) as error:
        jobs_of(folder, text)
    assert told in str(error.value)


def test_a_front_needs_a_protocol_with_criteria(folder):
    (folder / "small.toml").write_text(STUDY.partition("[pareto]")[0])
    with pytest.raises(StudyError, match=r"no table \[pareto\]"):
        jobs_of(folder, 'protocols = ["small.toml"]\nwhat = "pareto"\nphantoms = ["water-box"]\n')


def test_the_example_is_a_good_batch(tmp_path):
    jobs = list_jobs(read_batch(EXAMPLES / "batch.toml"), EXAMPLES, tmp_path)
    assert len(jobs) == 3


def test_the_digest_follows_the_study_the_table_and_the_case(folder):
    text = 'protocols = ["small.toml"]\nhu_table = "scanner.csv"\nimported = ["anna"]\n'
    store = Store(folder / "store")
    (job,) = jobs_of(folder, text)
    assert digest_of_job(job, store) == ""
    store.write_record(NAME, "anna", {"case": "c" * 32})
    seen = {digest_of_job(job, store)}
    assert digest_of_job(job, store) in seen
    (folder / "scanner.csv").write_text("hu,relative_electron_density\n" + TABLE.replace("2.5", "2.6"))
    seen.add(digest_of_job(job, store))
    store.write_record(NAME, "anna", {"case": "d" * 32})
    seen.add(digest_of_job(job, store))
    (folder / "small.toml").write_text(STUDY.replace("weight = 100.0", "weight = 101.0"))
    (job,) = jobs_of(folder, text)
    seen.add(digest_of_job(job, store))
    assert len(seen) == 4
    assert "" not in seen
