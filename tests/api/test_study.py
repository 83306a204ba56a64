"""`workhorse.study` and `workhorse.compare`."""

import re
import shlex
from pathlib import Path

import gymnasium
import pytest

import workhorse
from workhorse.cli.main import main
from workhorse.core.errors import UsageError
from workhorse.studies.folder import StudyFolder

HERE = Path(__file__).parent
SMALL = {
    "settings": {"ars": {"num_directions": 2, "num_top_directions": 1}},
    "task_options": {"CartPole-v1": {"max_episode_steps": 10}},
    "env_steps": 60,
    "final_episodes": 2,
    "evaluations": 1,
    "evaluation_episodes": 2,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    return workhorse.study("CartPole-v1", "ars", seeds=3, studies=folder, id="s", progress=False, **SMALL)


def test_what_a_study_holds(study):
    assert (study.id, study.plan.seeds) == ("s", (0, 1, 2))
    assert study.runs["seed"].to_list() == [0, 1, 2]
    assert set(study.runs["outcome"]) == {"finished"}
    (row,) = study.table.iter_rows(named=True)
    assert (row["task"], row["variant"], row["seeds"]) == ("CartPole-v1", "ars", 3)
    assert row["mean_return"] == pytest.approx(study.runs["score"].mean())
    assert row["low"] <= row["mean_return"] <= row["high"]
    assert "3 of 3 runs have ended" in repr(study) and "CartPole-v1 by ars: return" in repr(study)
    assert study.verdicts == ()
    assert (study.path / "results.parquet").exists()
    assert study.report() == study.path / "report.html"


def test_a_run_of_a_study_is_opened_by_its_seed(study):
    run = study.run(1)
    assert (run.seed, run.state) == (1, "finished")
    assert run.metrics["env_steps"][-1] == study.runs["env_steps"][1]
    with pytest.raises(UsageError, match=r"Expected one run of seed 7 in .*, found none"):
        study.run(7)


def test_a_finished_study_is_resumed_without_new_work(study):
    before = (study.path / "records/runs").stat().st_mtime
    assert workhorse.Study.open(study.path).resume(progress=False).runs.equals(study.runs)
    assert (study.path / "records/runs").stat().st_mtime == before


def test_the_recorded_command_makes_the_same_plan(study, monkeypatch):
    words = shlex.split(study.results.command)
    assert words[:2] == ["python", "-c"]
    made = []
    monkeypatch.setattr(StudyFolder, "create", lambda root, id, plan, command: made.append(plan) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        exec(words[2], {})
    assert made == [study.plan]


def test_studies_are_compared(study, capsys):
    found = workhorse.compare(study, study.path / "results.parquet")
    assert len(found.verdicts) == 1 and len(found.cells) == 2
    assert found.verdicts[0].better is None
    assert repr(found).startswith(found.verdicts[0].sentence)
    assert found.table["mean_return"].n_unique() == 1
    assert main(["compare", str(study.path), str(study.path)]) == 0
    assert found.verdicts[0].sentence in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_a_study_file_and_arguments_add_up_but_do_not_contradict(tmp_path, monkeypatch):
    (tmp_path / "my.yaml").write_text("tasks: CartPole-v1\nseeds: 3\n")
    made = []
    monkeypatch.setattr(StudyFolder, "create", lambda root, id, plan, command: made.append(plan) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        workhorse.study(algorithms=["ars"], file=tmp_path / "my.yaml", **SMALL)
    assert (made[0].tasks, made[0].seeds) == (("CartPole-v1",), (0, 1, 2))
    with pytest.raises(UsageError, match=r"`seeds` is set both in .*my.yaml and by an argument"):
        workhorse.study(algorithms=["ars"], file=tmp_path / "my.yaml", seeds=4)


BAD = [
    ({"tasks": "CartPol-v1"}, "Did you mean CartPole-v1"),
    ({"algorithms": "arz"}, "Unknown algorithm 'arz'"),
    ({"algorithms": None}, "Expected"),
    ({"seeds": 0}, "Expected `seeds` in the study to be a whole number of at least 1"),
    ({"settings": {"ars": {"num_direction": 2}}}, "Did you mean num_directions"),
    ({"settings": {"ars": {"noise_std": -1.0}}}, "noise_std must be a finite number above 0"),
    ({"tasks": gymnasium.make("CartPole-v1")}, "pass the id or the constructor"),
    ({"tasks": lambda: gymnasium.make("CartPole-v1")}, "A study trains in other processes, which cannot import"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_one_sentence_before_anything_is_made(tmp_path, given, message):
    with pytest.raises(UsageError, match=message):
        workhorse.study(
            **{"tasks": "CartPole-v1", "algorithms": "ars", "studies": tmp_path, "progress": False, **given}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_constructor_that_can_be_imported_is_a_task_of_a_study(monkeypatch):
    from workhorse.api.study import _names

    monkeypatch.syspath_prepend(HERE)
    import tanks

    assert _names(tanks.short_tank) == ["tanks:short_tank"]
    assert _names(["CartPole-v1", tanks.Tank]) == ["CartPole-v1", "tanks:Tank"]
