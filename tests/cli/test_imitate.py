"""`workhorse imitate`: what it refuses before any work, and what a small run leaves."""

import json
from pathlib import Path

import numpy as np
import pytest

from workhorse.api.imitate import resolve_imitate
from workhorse.cli.main import main
from workhorse.core.layers import Dense, Stretch
from workhorse.core.spec import Box
from workhorse.data.log_folder import read_log_folder
from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics
from workhorse.runs.policy import Policy

CLOCK = ["--max-episode-steps", "9"]
TINY = ["--final-episodes", "2", "--evaluate-every", "0", "--threads", "1", "--quiet", *CLOCK]
PRICES = 'currency = "EUR"\n[[core]]\nkind = "*"\nprice_per_core_hour = 2\nsource = "a guess"\n'


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKHORSE_PRICES", raising=False)
    spaces = {"observation": Box((-1.0, -1.0, -8.0), (1.0, 1.0, 8.0)), "action": Box((-2.0,), (2.0,))}
    layers = [Dense(np.array([[0.3, -0.5, -0.2]], np.float32)), Stretch()]
    Policy(layers, **spaces, task="Pendulum-v1").save("expert")


def refused(capsys, *words):
    assert main(["imitate", "Pendulum-v1", *words]) == 2
    assert not Path("runs").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "dagger needs an expert or a log of demonstrations, one of them"),
        (["--expert", "mppi", "--log", "x"], "dagger needs an expert or a log of demonstrations, one of them"),
        (["--log", "x"], "dagger asks its expert in states that no log holds"),
        (["--expert", "mppi", "--demonstrations", "3"], "--demonstrations and --noise have no effect"),
        (["--expert", "sac"], "sac has to learn before it can answer"),
        (["--expert", "expert", "--algorithm", "ppo"], "ppo cannot imitate: choose dagger"),
        (["--expert", "nowhere"], "Expected a policy or a run in nowhere, which does not exist"),
        (
            ["--expert", "expert", "--algorithm", "bc", "--demonstrations", "1"],
            "demonstrations must be at least 2 for bc",
        ),
        (["--expert", "expert", "--algorithm", "gail", "--demonstrations", "0"], "must be at least 1 for gail: got 0"),
        (["--expert", "expert", "--algorithm", "bc", "--noise", "-1"], "noise must be a finite number of at least 0"),
        (["--log", "x", "--algorithm", "bc", "--noise", "0.1"], "leave them out with --log"),
        (["--expert", "expert", "--prices", "x"], "--prices is for a price: add --price-per-demonstration"),
        (["--expert", "expert", "--price-per-demonstration", "-2"], "The price of a demonstration must be a finite"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_any_work(capsys, words, told):
    assert told in refused(capsys, *words)


def test_an_expert_of_another_task_is_refused_before_any_work(capsys):
    assert main(["imitate", "Hopper-v5", "--expert", "expert", "--algorithm", "bc"]) == 2
    assert "Expected observations of shape (3,), as in Pendulum-v1" in capsys.readouterr().err
    assert not Path("runs").exists() and not Path("logs").exists()


def test_other_commands_send_one_here(capsys):
    assert main(["train", "Pendulum-v1", "--algorithm", "dagger", "--env-steps", "9", *TINY]) == 2
    assert "dagger asks an expert, and none is given: `workhorse imitate Pendulum-v1" in capsys.readouterr().err
    assert main(["train", "Pendulum-v1", "--algorithm", "gail", "--env-steps", "9", *TINY]) == 2
    assert "gail learns from demonstrations, and none are given: `workhorse imitate" in capsys.readouterr().err


def test_a_run_asks_and_says_what_that_cost(capsys):
    Path("mine.toml").write_text(PRICES)
    priced = ["--price-per-demonstration", "2.5", "--prices", "mine.toml"]
    small = ["--num-envs", "2", "--hidden", "8", "--copy-updates", "2", "--memory-size", "100", "--env-steps", "30"]
    assert main(["imitate", "Pendulum-v1", "--expert", "expert", "--id", "r", *small, *priced, *TINY]) == 0
    rows = read_metrics(RunFolder.open("runs/r"))
    assert rows["expert_queries"].to_list() == [18, 36] and rows["demonstrations"].to_list() == [2, 4]
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith("4 demonstrations at 2.50 = 10.00 EUR + 0.00") and "no run of RL" in printed
    manifest = RunFolder.open("runs/r").manifest()
    assert manifest.sources is not None and len(manifest.sources.expert_digest) == 64
    assert Path(manifest.sources.expert) == Path("expert").resolve()


def test_demonstrations_are_written_once_and_name_their_expert(capsys):
    words = ["imitate", "Pendulum-v1", "--expert", "expert", "--algorithm", "gail", "--demonstrations", "3"]
    small = ["--num-envs", "2", "--rollout-steps", "32", "--env-steps", "64", "--memory-size", "100"]
    assert main([*words, *small, *TINY, "--id", "one"]) == 0
    (folder,) = Path("logs").iterdir()
    log, stamp = read_log_folder(folder), (folder / "card.json").stat().st_mtime_ns
    assert log.num_episodes == 3 and log.card.made["seed"] == 0 and log.card.made["noise"] == 0.0
    assert main([*words, *small, *TINY, "--id", "two"]) == 0
    assert (folder / "card.json").stat().st_mtime_ns == stamp
    one, two = (read_metrics(RunFolder.open(f"runs/{name}"))["digest"].to_list() for name in ("one", "two"))
    assert one == two and len(one) == 1
    card = json.loads((folder / "card.json").read_text())
    assert card["made"]["expert"] == str(Path("expert").resolve())
    Policy.load("expert").save("other/expert")
    again = ["imitate", "Pendulum-v1", "--expert", "other/expert", "--algorithm", "gail", "--demonstrations", "3"]
    assert main([*again, *small, *TINY]) == 2
    assert "holds demonstrations of another expert" in capsys.readouterr().err


def test_a_log_too_long_for_the_memory_is_refused(capsys):
    words = ["imitate", "Pendulum-v1", "--expert", "expert", "--algorithm", "gail", "--demonstrations", "3"]
    assert main([*words, "--memory-size", "20", "--env-steps", "64", *TINY]) == 2
    assert "GAIL.memory_size must hold the 27 steps of the log" in capsys.readouterr().err


def test_the_command_of_a_setup_is_one_that_makes_it_again():
    setup = resolve_imitate("Pendulum-v1", "expert", "dagger", settings={"num_envs": 2}, env_steps=40, seed=3)
    words = setup.command()
    assert words[:3] == ("workhorse", "imitate", "Pendulum-v1")
    assert words[words.index("--expert") + 1] == str(Path("expert").resolve())
    assert words[words.index("--seed") + 1] == "3" and words[words.index("--num-envs") + 1] == "2"


def test_the_default_budget_is_twenty_iterations_with_the_steps_of_a_planners_trials():
    of_a_policy = resolve_imitate("Pendulum-v1", "expert", "dagger", settings={"num_envs": 3})
    assert of_a_policy.env_steps == 20 * 3 * 200
    of_a_planner = resolve_imitate("Pendulum-v1", "mppi", "dagger", settings={"num_envs": 3})
    assert of_a_planner.env_steps == 20 * 3 * 200 * (1 + 33 * 30), "33 plans of 30 steps before each action"
