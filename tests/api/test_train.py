"""`workhorse.train` and `Run`: the command line's run, a callback that stops it, tasks given as objects."""

import contextlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import workhorse
from workhorse.cli.main import main
from workhorse.cli.train import _read, _setup
from workhorse.core.errors import UsageError
from workhorse.environments.constructors import named_task, registered

SMALL = {"num_directions": 2, "num_top_directions": 1, "final_episodes": 2, "evaluate_every": 0, "progress": False}
SHORT = {"task_options": {"max_episode_steps": 10}, "env_steps": 60}
HERE = Path(__file__).parent


def trained(tmp_path, task="CartPole-v1", **more):
    return workhorse.train(task, **{"algorithm": "ars", "runs": tmp_path, "id": "r", **SMALL, **SHORT, **more})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"), seed=3)


def test_a_run_from_python_is_the_command_line_s_to_the_bit(run, tmp_path):
    words = "--num-directions 2 --num-top-directions 1 --final-episodes 2 --evaluate-every 0 --env-steps 60 --seed 3"
    line = f"train CartPole-v1 --algorithm ars {words} --task-option max_episode_steps=10 --quiet --id r"
    assert main([*line.split(), "--runs", str(tmp_path)]) == 0
    typed = workhorse.Run.open(tmp_path / "r")
    assert typed.metrics["digest"].to_list() == run.metrics["digest"].to_list()
    assert typed.settings == run.settings


@pytest.mark.parametrize(
    ("task", "algorithm", "settings"),
    [
        ("CartPole-v1", "ars", {"num_directions": 2}),
        ("Hopper-v5", "ppo", {"hidden": (8, 8), "anneal_learning_rate": False}),
    ],
)
def test_the_recorded_command_line_trains_the_same_run(monkeypatch, tmp_path, task, algorithm, settings):
    found = {}

    def start(setup, **given):
        found.update(given, setup=setup)
        raise InterruptedError

    monkeypatch.setattr("workhorse.api.setup.RunSetup.start", start)
    given = {"seed": 7, "env_steps": 1e3, "stop_at_return": 9.5, "task_options": {"frame_skip": 3}, "threads": 1}
    given |= {"stop_on_warning": True, "runs": str(tmp_path), "id": "a", "slots": 4, "progress": False, **settings}
    with pytest.raises(InterruptedError):
        workhorse.train(task, algorithm, **given)
    assert _setup(_read(found["command"][2:])) == found["setup"]


def test_what_a_run_holds(run):
    assert (run.id, run.task, run.algorithm, run.seed, run.state) == ("r", "CartPole-v1", "ars", 3, "finished")
    assert run.env_steps == run.metrics["env_steps"][-1] >= 60
    assert run.summary.episode_return.value == run.last_return
    assert run.settings["num_directions"] == 2
    action, _ = run.policy.predict([0.0, 0.0, 0.0, 0.0])
    assert action in (0, 1)
    assert "CartPole-v1 by ars, seed 3, finished after" in repr(run)
    assert workhorse.Run.open(run.path).summary is None


def test_a_run_evaluates_and_reports(run):
    found = run.evaluate(3)
    assert found.mean == found.returns.mean() == found.episode_return.value
    assert len(found.lengths) == 3
    assert "over 3 episodes" in repr(found)
    assert run.report() == run.path / "report.html"
    assert run.report().exists()


def test_a_callback_gets_every_iteration_in_plain_numbers(tmp_path):
    rows = []
    run = trained(tmp_path, callback=rows.append, evaluate_every=20)
    assert [row["iteration"] for row in rows] == run.metrics["iteration"].to_list()
    assert [row["env_steps"] for row in rows] == run.metrics["env_steps"].to_list()
    assert {"training_return", "evaluation_return", "wall_s"} <= set(rows[-1])
    assert all(type(value) in (int, float) for row in rows for value in row.values())


@pytest.mark.parametrize("answer", [False, np.False_])
def test_a_callback_that_returns_false_stops_a_run_that_resumes_to_the_same_bits(tmp_path, run, answer):
    seen = []

    def stop(row):
        seen.append(row["iteration"])
        return answer if row["iteration"] == 1 else None

    stopped = trained(tmp_path, seed=3, callback=stop)
    assert (stopped.state, stopped.summary, seen) == ("stopped", None, [1])
    assert stopped.env_steps < 60
    assert stopped.policy.metadata["iteration"] == 1
    assert stopped.resume(progress=False) is stopped
    assert (stopped.state, stopped.summary.env_steps) == ("finished", run.env_steps)
    assert stopped.metrics["digest"].to_list() == run.metrics["digest"].to_list()


@pytest.mark.parametrize("answer", [None, True, 0, "", [], 1.0])
def test_only_false_stops_a_run(tmp_path, answer):
    """tqdm's update and list.append return other things that are not true."""
    assert trained(tmp_path, callback=lambda row: answer).state == "finished"


def test_an_exception_in_a_callback_ends_the_run_with_its_state_saved(tmp_path, run):
    def broken(row):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trained(tmp_path, seed=3, callback=broken)
    failed = workhorse.Run.open(tmp_path / "r")
    assert (failed.state, failed.metrics["iteration"].to_list()) == ("failed", [1])
    assert failed.resume(progress=False).metrics["digest"].to_list() == run.metrics["digest"].to_list()


def test_ctrl_c_saves_the_run_and_says_how_to_go_on(tmp_path, capsys):
    def pressed(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, callback=pressed)
    assert f"workhorse.Run.open({str(tmp_path / 'r')!r}).resume()" in capsys.readouterr().out
    assert workhorse.Run.open(tmp_path / "r").state == "stopped"


def test_progress_is_shown_or_not(tmp_path, capsys):
    trained(tmp_path)
    assert capsys.readouterr().out == ""
    workhorse.Run.open(tmp_path / "r").resume(env_steps=90)
    assert "Continuing at iteration" in (said := capsys.readouterr().out) and "without noise" in said


BAD = [
    ({"discout": 0.9}, r"Unknown option of ars 'discout'\."),
    ({"env_step": 9}, "Unknown option of ars 'env_step'. Did you mean env_steps"),
    ({"total_timesteps": 9}, "Unknown option of ars 'total_timesteps': in Workhorse it is env_steps"),
    ({"sigma": 9}, "Unknown option of ars 'sigma': in Workhorse it is noise_std"),
    ({"algorithm": "pppo"}, "Unknown algorithm 'pppo'. Did you mean ppo"),
    ({"num_direction": 9}, "Did you mean num_directions"),
    ({"env_steps": 2.5}, "env_steps must be a whole number: got 2.5"),
    ({"env_steps": "many"}, "env_steps must be a whole number: got 'many'"),
    ({"evaluate_every": 2.5}, "evaluate_every must be a whole number: got 2.5"),
    ({"env_steps": 0}, "budget must be at least 1 environment step"),
    ({"seed": -1}, "The seed must be in"),
    ({"num_directions": "x"}, "ars.num_directions must be a whole number: got 'x'"),
    ({"callback": 3}, "callback must be a function of an iteration's metrics: got 3"),
    ({"task": 3}, "Expected a task's id, the constructor of an environment or an environment of Gymnasium, got 3"),
    ({"task": "CartPol-v1"}, "Did you mean CartPole-v1"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[str(given) for given, _ in BAD])
def test_bad_input_is_one_sentence_before_anything_is_made(tmp_path, given, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        trained(tmp_path, **given)
    assert list(tmp_path.iterdir()) == []


def test_an_option_is_one_thing_in_train_and_in_every_algorithm():
    from inspect import signature

    from workhorse.algorithms import registry

    ours = set(signature(workhorse.train).parameters)
    assert not [name for entry in registry.entries() for name in registry.options(entry) if name in ours]


# Tasks given as objects


def same_as_by_constructor(tmp_path, task, **more):
    run = workhorse.train(task, "ars", env_steps=60, runs=tmp_path, id="again", **{**SMALL, **more})
    return run, run.metrics["digest"].to_list()


def test_a_constructor_is_recorded_by_the_name_under_which_it_is_imported(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(HERE)
    import tanks

    run, bits = same_as_by_constructor(tmp_path, tanks.short_tank, seed=1)
    assert run.task == "tanks:short_tank"
    gymnasium.registry.pop("short_tank")  # as in another process
    monkeypatch.delitem(sys.modules, "tanks")
    assert main(["evaluate", str(run.path), "--episodes", "2"]) == 0
    assert "over 2 episodes" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="runs in this process"):
        again = same_as_by_constructor(tmp_path / "b", lambda: tanks.short_tank(), seed=1)[1]
    assert again == bits


def test_a_constructor_that_was_defined_anew_is_the_one_that_is_used(monkeypatch):
    """As when a notebook's cell with the environment is run again."""
    monkeypatch.syspath_prepend(HERE)
    import tanks

    for push in (0.1, 0.2):
        monkeypatch.setattr(tanks, "Tank", type("Tank", (tanks.Tank,), {"__module__": "tanks", "push": push}))
        assert registered(named_task(tanks.Tank)[0]).entry_point.push == push


def test_options_of_a_task_go_to_the_constructor(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    import tanks

    runs = [
        same_as_by_constructor(tmp_path / str(push), tanks.short_tank, task_options={"push": push})
        for push in (0.1, 0.3)
    ]
    assert runs[0][1] != runs[1][1]
    assert runs[1][0].manifest.task_options == {"push": 0.3}


def test_a_lambda_needs_to_be_given_again_in_another_process(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    import tanks

    from workhorse.environments import constructors

    with warnings.catch_warnings(action="ignore", category=UserWarning):
        run, _ = same_as_by_constructor(tmp_path, lambda: tanks.short_tank(), callback=lambda row: False)
    assert run.resume(progress=False).state == "finished"
    monkeypatch.setattr(constructors, "_NAMELESS", {})  # as in another process
    gymnasium.registry.pop(run.task.partition(":")[2])
    with pytest.raises(UsageError, match="was defined in a program or a notebook"):
        run.evaluate(2)
    again = workhorse.Run.open(run.path, task=lambda: tanks.short_tank())
    assert again.evaluate(2).mean == pytest.approx(run.last_return, abs=1e-9)


def test_an_environment_is_made_again_from_its_spec():
    env = gymnasium.make("CartPole-v1", max_episode_steps=50, render_mode="rgb_array")
    assert named_task(env) == ("CartPole-v1", {"max_episode_steps": 50})
    assert named_task(gymnasium.make("HalfCheetah-v5", frame_skip=3)) == ("HalfCheetah-v5", {"frame_skip": 3})
    stacked = gymnasium.wrappers.FrameStackObservation(gymnasium.make("Pendulum-v1"), 2)
    place = "gymnasium.wrappers.stateful_observation:FrameStackObservation"
    wrappers = [f"{place}(stack_size=2, padding_type='reset')"]
    assert named_task(stacked) == ("Pendulum-v1", {"wrappers": wrappers})


def test_a_wrapper_without_arguments_need_not_record_them(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    import tanks

    assert named_task(tanks.Twice(gymnasium.make("Pendulum-v1")))[1] == {"wrappers": ["tanks:Twice"]}


def test_wrappers_are_given_as_classes_or_as_text(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    import tanks

    given = {"task": "Pendulum-v1", "max_episode_steps": 10, "task_options": {}}
    plain = trained(tmp_path / "a", **given)
    twice = trained(tmp_path / "b", **given, wrappers=[tanks.Twice])
    assert twice.manifest.task_options == {"wrappers": ["tanks:Twice"], "max_episode_steps": 10}
    assert twice.last_return == pytest.approx(2 * plain.last_return, rel=0.5)
    env = tanks.Twice(gymnasium.make("Pendulum-v1", max_episode_steps=10))
    same = trained(tmp_path / "c", task=env, task_options={})
    assert same.metrics["digest"].to_list() == twice.metrics["digest"].to_list()

    class Local(gymnasium.Wrapper):
        pass

    with pytest.raises(UsageError, match="cannot be imported by worker processes"):
        trained(tmp_path, **given, wrappers=[Local])


def test_an_environment_that_cannot_be_made_again_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    import tanks

    with pytest.raises(UsageError, match="pass its constructor, a class or a function that returns it"):
        named_task(tanks.Tank())
    with pytest.raises(UsageError, match="wrapper TransformReward has arguments that cannot be written down"):
        named_task(gymnasium.wrappers.TransformReward(gymnasium.make("Pendulum-v1"), lambda reward: reward))
    with pytest.raises(UsageError, match="got the vector environment"):
        named_task(gymnasium.make_vec("CartPole-v1", num_envs=2))


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
import gymnasium, tanks, workhorse

class Mine(tanks.Tank):
    pass

def make():
    return gymnasium.wrappers.TimeLimit(Mine(), 10)

settings = dict(num_directions=2, num_top_directions=1, final_episodes=2, evaluate_every=0)
run = workhorse.train(make, "ars", env_steps=60, runs={runs!r}, id="r", **settings)
print(run)
"""


@pytest.mark.slow
def test_a_program_without_a_guard_trains_in_its_own_process(tmp_path):
    """A worker imports the program to find the constructor; it must not train there as well."""
    program = tmp_path / "program.py"
    program.write_text(SCRIPT.format(here=str(HERE), runs=str(tmp_path / "runs")))
    answer = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("Run(") == 1
    assert "put the training under `if __name__ == '__main__':`" in answer.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["r"]
    assert json.loads((tmp_path / "runs/r/manifest.json").read_text())["task"] == "__main__:make"


def test_metrics_go_to_weights_and_biases_where_asked_for(tmp_path, monkeypatch):
    from workhorse.runs.train import Observer

    asked, sent = [], []

    class Sending(Observer):
        def __init__(self, observer):
            self._observer = observer
            self.started, self.noted = observer.started, observer.noted

        def iterated(self, row):
            sent.append(row["iteration"])
            self._observer.iterated(row)

    def context(project, observer):
        asked.append(project)
        return contextlib.nullcontext(observer if project is None else Sending(observer))

    monkeypatch.setattr("workhorse.api.watching.sent_to_wandb", context)
    stopped = trained(tmp_path, wandb="mine", callback=lambda row: False)
    assert (stopped.state, sent) == ("stopped", [1])
    stopped.resume(progress=False, wandb="mine").resume(progress=False)
    assert asked == ["mine", "mine", None]
    assert sent == stopped.metrics["iteration"].to_list()
