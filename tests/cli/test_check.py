"""`workhorse check`: its exit codes and its layout."""

import pytest

from workhorse.cli.main import main


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("workhorse.environments.survey.MOST_STEPS", 30)


def test_a_task_that_trains_gives_0_and_lines_of_80_columns(capsys):
    assert main(["check", "CartPole-v1", "--max-episode-steps", "20", "--frame-stack", "2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("CartPole-v1  frame_stack=2  max_episode_steps=20\n\n  spaces        ")
    assert "an array 2 x 4" in said and "It can be trained on" in said
    assert max(map(len, said.splitlines())) <= 80


def test_a_task_that_is_refused_gives_2(capsys):
    assert main(["check", "CliffWalking-v1"]) == 2
    said = capsys.readouterr().out
    assert "  time limit    STOP  CliffWalking-v1 has no time limit" in said
    assert said.endswith("It cannot be trained on as it is.\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("check NoSuchTask-v0", "Unknown task 'NoSuchTask-v0'"),
        ("check", "Expected the task, which is missing"),
        ("check CartPole-v1 --wrapper x", "A wrapper must be written module:name"),
        ("check CartPole-v1 --max-episode-steps 0", "max_episode_steps must be a whole number of at least 1"),
        (
            "check CartPole-v1 --frame-stack 2 --task-option frame_stack=3",
            "given by --frame-stack and by --task-option",
        ),
    ],
)
def test_wrong_input_is_said_in_a_sentence(capsys, line, message):
    assert main(line.split()) == 2
    assert message in capsys.readouterr().err
