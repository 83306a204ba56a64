"""`study`, `compare` and `report` as they are typed."""

import contextlib
import io
import json
import re
import shutil

import pytest

from workhorse.cli.main import main
from workhorse.runs.sealed import sealed_bytes

TINY = (
    "--tasks CartPole-v1 --algorithms ars --seeds 3 --env-steps 1000 --task-option max_episode_steps=20 --threshold 15"
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study: its folder, and what it printed."""
    root, said = tmp_path_factory.mktemp("studies"), io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["study", *TINY.split(), "--studies", str(root), "--id", "s"]) == 0
    return root / "s", said.getvalue()


def test_a_study_ends_in_a_table_and_a_page(study):
    folder, said = study
    assert "3 of 3" in said
    assert "3 of 3 runs have ended; 0 crashed" in said
    assert str(folder / "report.html") in said
    page = (folder / "report.html").read_text()
    assert "CartPole-v1" in page
    assert "workhorse study --tasks CartPole-v1" in re.sub("</?span>", "", page), "the command that makes it again"
    assert (folder / "results.parquet").exists()


def test_a_study_goes_on_from_its_folder(study, capsys):
    folder, _ = study
    assert main(["study", str(folder)]) == 0
    assert "Continuing, 3 of 3 runs have ended" in capsys.readouterr().out


def test_two_studies_are_compared(study, capsys):
    folder, _ = study
    assert main(["compare", str(folder), str(folder / "results.parquet")]) == 0
    said = capsys.readouterr().out
    assert "too few runs to compare (3); each needs at least 5 seeds" in said
    assert "better" not in said


def test_a_report_is_made_of_a_study_a_table_and_a_run(study, tmp_path, capsys):
    folder, _ = study
    run = next((folder / "runs").iterdir())
    for words in ([str(folder)], [str(folder / "results.parquet"), "--output", str(tmp_path / "new")], [str(run)]):
        assert main(["report", *words]) == 0
        place = capsys.readouterr().out.strip()
        assert place.endswith("report.html")
        with open(place) as page:
            assert "<html" in page.read(2000)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("study", "`tasks` in the command line to be a list of at least one name"),
        ("study nope.yaml", "Expected a study file in nope.yaml, which does not exist"),
        ("study --tasks Hoper-v5 --algorithms ars", "Did you mean Hopper-v5"),
        (
            "study --tasks CartPole-v1 --algorithms ars --seeds 0",
            "`seeds` in the command line to be a whole",
        ),
        ("study --tasks CartPole-v1 --algorithms ars --cores -1", "--cores must be at least 1"),
        ("study --tasks CartPole-v1 --algorithms ars --budget 2h", "a number and a unit"),
        ("study --tasks CartPole-v1 Acrobot-v1 --algorithms ars --threshold 3", "for a study of one task"),
        ("study --tasks CartPole-v1 --algorithms ars --task-option speed=3", "CartPole-v1 has no option 'speed'"),
        ("study --tasks CartPole-v1 --algorithms ars --id ../x", "Expected a study id"),
        ("study --tasks Pendulum-v1 --algorithms ppo --workers 2", "--workers is for runs on a cluster"),
        ("study --tasks CartPole-v1 --algorithms ars ppo --cluster auto --each-on-all", "ppo learns on one machine"),
        ("study --tasks CartPole-v1 --algorithms ars --each-on-all", "--each-on-all is for studies on a cluster. Add"),
        ("study --tasks CartPole-v1 --algorithms ars --cluster auto --cores 2", "on a cluster it is --workers"),
        (
            "study --tasks CartPole-v1 --algorithms ars --cluster auto --workers 0",
            "--workers must be at least 1: got 0",
        ),
        (
            "study --tasks CartPole-v1 --algorithms ppo --cluster auto --exchange scalars",
            "--exchange is for a run that is",
        ),
        ("study --tasks CartPole-v1 --algorithms ppo --cluster 127.0.0.2:1", "nothing answers there"),
        ("study --tasks CartPole-v1 --algorithms ppo --cluster nowhere", "A cluster's address must be HOST:PORT"),
        (
            "train CartPole-v1 --seeds 2 --cluster auto --worker-threads 2",
            "--worker-threads is for a run that is spread",
        ),
        ("train CartPole-v1 --seeds 2 --workers 2", "--workers is for runs on a cluster"),
        ("study SEARCH", "takes whole numbers: got the range"),
        ("study ARTEFACT", "gravty"),
        ("study STUDY --seeds 4", "--seeds is for a new study"),
        ("compare STUDY", "Expected the other study, which is missing"),
        ("compare STUDY nope", "Expected a study in nope, which does not exist"),
        ("compare STUDY STUDY --variant zz", "has no variant 'zz'; it has ars"),
        ("report nope", "nope"),
        ("report STUDY --output x", "--output is for the table of a study"),
        ("resume STUDY", "is a study, not a run"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(study, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    files = {"SEARCH": "search: {num_directions: {low: 2.5, high: 8}}", "ARTEFACT": "perturbations: {gravty: [1.3]}"}
    for name, entry in files.items():
        (tmp_path / name).write_text(f"tasks: CartPole-v1\nalgorithms: [ars]\n{entry}\n")
    assert main([str(study[0]) if word == "STUDY" else word for word in words.split()]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "studies").exists(), "nothing was begun"


def test_a_damaged_study_is_said_to_be_one(study, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(study[0], copy)
    (copy / "study.json").write_text("{")
    assert main(["study", str(copy)]) == 2
    assert "study.json, but it cannot be read" in capsys.readouterr().err
    (copy / "study.json").write_text((study[0] / "study.json").read_text().replace('"format": 1', '"format": 9'))
    assert main(["study", str(copy)]) == 2
    assert "its content does not have its checksum" in capsys.readouterr().err
    (copy / "study.json").write_bytes(sealed_bytes(json.loads((study[0] / "study.json").read_text()) | {"format": 9}))
    assert main(["study", str(copy)]) == 2
    assert "Expected study format 1" in capsys.readouterr().err
    (copy / "results.parquet").write_bytes(b"PAR1 nonsense")
    assert main(["report", str(copy / "results.parquet")]) == 2
    assert "damaged or another program's" in capsys.readouterr().err
