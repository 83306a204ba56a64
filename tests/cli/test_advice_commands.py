"""`workhorse rivals` and `workhorse advise`, as they are typed."""

import json

import pytest

from workhorse.advice.advise import advice_on
from workhorse.advice.probe import TaskCard
from workhorse.advice.store import read_rivals
from workhorse.cli.advise import _said
from workhorse.cli.main import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rivals_are_printed_kept_and_drawn(capsys, elsewhere):
    words = "rivals CartPole-v1 --task-option max_episode_steps=50 --only zero lqr --episodes 5 --threads 1"
    assert main(words.split()) == 0
    said = capsys.readouterr().out
    assert "do nothing" in said and "lqr" in said and "50 [50, 50]" in said
    (folder,) = (elsewhere / "rivals").iterdir()
    found = read_rivals(folder / "rivals.json")
    assert [one.contender.algorithm for one in found.outcomes] == ["zero", "lqr"]
    assert found.made_by == "workhorse " + words and found.outcomes[1].interval.value == 50
    assert found.floor == found.outcomes[0].interval.value < 20
    page = (folder / "report.html").read_text()
    assert "Without learning, lqr earns" in page and "<script src" not in page
    assert (folder / "report-data" / "frontier.csv").read_text().count("\n") == 3


def test_advice_is_said_and_kept_and_scored(capsys, elsewhere):
    task = "CartPole-v1 --task-option max_episode_steps=50 --threads 1"
    assert main(f"advise {task} --budget 0.001 --simulator-available no --step-price 0.01".split()) == 0
    said = " ".join(capsys.readouterr().out.split())  # it is wrapped
    assert "measuring: random play" in said and "no time left of 0.001 s" in said
    assert "you said that there is no simulator" in said and "for steps" in said
    assert "workhorse train CartPole-v1 --task-option max_episode_steps=50 --algorithm ppo --env-steps 200000" in said
    (file,) = (elsewhere / "forecasts").glob("*.json")
    assert json.loads(file.read_text())["options"] == {"max_episode_steps": 50}
    assert main(["advise", "--score"]) == 0
    assert "1 forecasts, and no finished run" in capsys.readouterr().out
    assert main(f"train {task} --algorithm zero --env-steps 100 --quiet".split()) == 0
    assert main(f"train {task} --algorithm lqr --env-steps 1 --quiet".split()) == 0
    capsys.readouterr()
    assert main(["advise", "--score"]) == 0
    said = capsys.readouterr().out
    assert "1 forecasts of a class on a task can be judged" in said and "Brier score" in said
    assert "Scored forecasts" in (elsewhere / "forecasts" / "report.html").read_text()


def test_randomness_outside_the_seed_is_named():
    advice = advice_on(TaskCard("CartPole-v1", {}, {"repeatable": 0.0, "action_size": 2.0}, {}, {}))
    assert "CartPole-v1 draws randomness outside its seed" in " ".join("\n".join(_said(advice, 0.0)).split())
    sound = advice_on(TaskCard("CartPole-v1", {}, {"repeatable": 1.0, "action_size": 2.0}, {}, {}))
    assert "outside its seed" not in "\n".join(_said(sound, 0.0))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("rivals CartPole-v1 --budget 0", "must be a positive number of core-seconds: got 0.0"),
        ("rivals CartPole-v1 --budget nan", "must be a positive number of core-seconds: got nan"),
        ("rivals CartPole-v1 --episodes 0", "number of episodes must be at least 1: got 0"),
        ("rivals CartPole-v1 --only lqz", "There is no rival 'lqz'; the rivals are zero, random"),
        ("rivals Hoper-v5", "Did you mean Hopper-v5"),
        ("rivals CartPole-v1 --task-option colour=1", "CartPole-v1 has no option 'colour'"),
        ("advise", "Expected a task, as in `workhorse advise CartPole-v1`, or --score."),
        ("advise CartPole-v1 --budget -1", "must be a positive number of seconds: got -1.0"),
        ("advise CartPole-v1 --step-price -1", "price of a step must be at least 0: got -1.0"),
        ("advise --score", "There is no forecast in forecasts: `workhorse advise TASK` makes one."),
        ("advise CartPole-v1 --simulator-available maybe", "maybe"),
    ],
)
def test_bad_words_get_a_sentence_and_leave_nothing(words, text, capsys, elsewhere):
    assert main(words.split()) == 2
    assert text in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []
