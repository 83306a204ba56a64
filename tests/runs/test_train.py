"""Training runs: interrupted equals uninterrupted, and bad input loses nothing."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from workhorse import Policy
from workhorse.core.errors import UsageError
from workhorse.core.machine import available_cores
from workhorse.runs import checkpoint, train
from workhorse.runs.cost import Ledger
from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics
from workhorse.runs.run import TrainingRun
from workhorse.training.loop import make_loop
from workhorse.training.on_policy import OnPolicyLoop

sys.path.insert(0, str(Path(__file__).parents[1] / "environments"))
import weird_environments  # noqa: F401

SHORT = {"CartPole-v1": {"max_episode_steps": 20}, "Hopper-v5": {"max_episode_steps": 20}}
ALGORITHMS = {
    "openai-es": {"num_pairs": 4, "adaptive_episode_cap": 2.0},
    "ars": {"num_directions": 4, "num_top_directions": 2},
    "hill-climb": {"num_candidates": 3},
    "finite-differences": {"coordinates": 3},
    **{
        name: {"num_envs": 3, "rollout_steps": 20, "hidden": (8,), "anneal_env_steps": 600, **more}
        for name, more in {
            "ppo": {"minibatch_size": 20, "num_epochs": 2},
            "trpo": {"minibatch_size": 20, "value_epochs": 2, "cg_iterations": 3},
            "a2c": {},
            "reinforce": {"learned_baseline": False},
        }.items()
    },
}
QUICK = train.Schedule(evaluate_every=100, evaluation_episodes=3, final_episodes=4, checkpoint_every_s=0)


def begin(root, id, task, algorithm, env_steps, **more):
    return train.start(
        task=task,
        task_options=SHORT.get(task, {}),
        algorithm=algorithm,
        settings=ALGORITHMS[algorithm],
        env_steps=env_steps,
        seed=3,
        threads=1,
        schedule=QUICK,
        root=root,
        id=id,
        **more,
    )


def digests(folder):
    metrics = read_metrics(folder)
    iterations = metrics["iteration"].to_list()
    assert iterations == list(range(1, len(iterations) + 1)), "an iteration is missing or repeated"
    return metrics["digest"].to_list()


GRADIENTS = ("trpo", "a2c", "reinforce")
TASKS = ("CartPole-v1", "Hopper-v5", "FrozenLake-v1", "weird/Walk-v0")
PAIRS = [
    pytest.param(
        task,
        algorithm,
        marks=()
        if algorithm == "ppo"
        or (algorithm == "openai-es" and task != "weird/Walk-v0")
        or (task == "Hopper-v5" and algorithm not in GRADIENTS)
        else pytest.mark.slow,
    )
    for task in TASKS
    for algorithm in ALGORITHMS
]
"""Every algorithm on one kind of environment, and every kind with one algorithm a loop; the rest takes too long."""


@pytest.mark.parametrize(("task", "algorithm"), PAIRS)
def test_a_run_in_two_sittings_has_the_bits_of_one(tmp_path, task, algorithm):
    straight, summary = begin(tmp_path, "straight", task, algorithm, 600)
    begin(tmp_path, "halves", task, algorithm, 200)
    halves, resumed = train.resume(tmp_path / "halves", env_steps=600)
    assert digests(straight) == digests(halves) and len(set(digests(straight))) > 3
    assert summary.episode_returns == resumed.episode_returns
    assert summary.env_steps == resumed.env_steps and summary.evaluation_steps == resumed.evaluation_steps


def cart_pole(root, id, env_steps=1200, **schedule):
    """Of a policy that learns too slowly to matter: its evaluations differ by chance."""
    return train.start(
        task="CartPole-v1", algorithm="openai-es", settings={"num_pairs": 4, "learning_rate": 1e-3}, root=root, id=id,
        env_steps=env_steps, threads=1, seed=3,
        schedule=train.Schedule(evaluate_every=100, evaluation_episodes=3, final_episodes=5, **schedule),
    )  # fmt: skip


def evaluations(folder):
    metrics = read_metrics(folder)
    return [(row["iteration"], row["evaluation_return"]) for row in metrics.to_dicts() if row["evaluation_return"]]


def format_of(file):
    """The format of a file of a run by its content; None for any other, a pickle among them."""
    content = file.read_bytes()
    if file.suffix == ".json":
        return json.loads(content) is not None and "JSON"
    if file.suffix == ".parquet":
        return "Parquet" if content[:4] == content[-4:] == b"PAR1" else None
    if file.suffix == ".safetensors":
        size = int.from_bytes(content[:8], "little")
        return "safetensors" if isinstance(json.loads(content[8 : 8 + size]), dict) else None
    if file.name.startswith("events.out.tfevents"):  # length, its checksum, and the version of the format first
        return "TensorBoard" if b"brain.Event:2" in content[:64] else None
    if file.name in ("lock", "run.log"):
        return "text" if content.decode().isprintable() or file.name == "run.log" else None
    return None


class TestStoppingAtAReturn:
    @pytest.fixture
    def straight(self, tmp_path):
        return cart_pole(tmp_path, "straight")[0]

    @pytest.fixture
    def first(self, straight):
        """The best evaluation of the first half: the first of all that is at least as high as itself."""
        found = evaluations(straight)
        return max(found[: len(found) // 2], key=lambda one: one[1])

    def test_it_ends_at_the_first_evaluation_that_is_there(self, tmp_path, straight, first):
        iteration, threshold = first
        folder, summary = cart_pole(tmp_path, "stopped", stop_at_return=threshold)
        assert evaluations(folder)[-1] == (iteration, threshold) and folder.status().iteration == iteration
        assert digests(folder) == digests(straight)[:iteration]
        assert folder.status().state == "finished" and len(summary.episode_returns) == 5
        assert summary.env_steps < 1200

    def test_a_higher_one_is_never_reached(self, tmp_path, straight):
        folder, summary = cart_pole(tmp_path, "never", stop_at_return=501.0)
        assert digests(folder) == digests(straight) and summary.env_steps >= 1200

    def test_a_finished_run_goes_on_to_its_budget_also_when_that_is_stopped_at_once(
        self, tmp_path, straight, first, monkeypatch
    ):
        folder, _ = cart_pole(tmp_path, "stopped", stop_at_return=first[1])
        with monkeypatch.context() as patch:  # as a kill: nothing is saved on the way out
            patch.setattr(TrainingRun, "to_the_end", lambda run, *_, **__: run._write_status("running"))
            train.resume(folder.path, threads=1)
        assert folder.status().state == "running" and len(digests(folder)) == first[0]
        train.resume(folder.path, threads=1)
        assert digests(folder) == digests(straight)

    def test_one_that_was_stopped_before_it_was_judged_is_judged_where_it_is(self, tmp_path, first, monkeypatch):
        _, expected = cart_pole(tmp_path, "stopped", stop_at_return=first[1])
        with monkeypatch.context() as patch:
            patch.setattr(TrainingRun, "_judge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                cart_pole(tmp_path, "interrupted", stop_at_return=first[1])
        folder, summary = train.resume(tmp_path / "interrupted", threads=1)
        assert folder.status().iteration == first[0] and folder.status().state == "finished"
        assert summary.episode_returns == expected.episode_returns


CHILD = """
import sys
from workhorse.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def workhorse(*words, **options):
    return subprocess.Popen([sys.executable, "-c", CHILD, *map(str, words)], **options)


LOOPS = {
    "a population": "--algorithm ars --num-directions 4 --num-top-directions 2",
    "a replay": "--algorithm sac --num-envs 2 --rollout-steps 32 --learn-every 16 --batch-size 16 --replay-ratio 4 "
    "--warmup-env-steps 64 --replay-capacity 300 --hidden 8 --normalise-observations",
    "rollouts": "--algorithm ppo --num-envs 3 --rollout-steps 20 --minibatch-size 30 --num-epochs 2 --hidden 8",
}
"""An algorithm for each kind of loop."""


def training(loop):
    return shlex.split(
        f"train Hopper-v5 {LOOPS[loop]} --task-option max_episode_steps=40 --seed 5 --threads 1 "
        "--checkpoint-every-s 0 --final-episodes 2 --evaluate-every 0 --quiet"
    )


TRAIN = training("a population")


def kill_and_resume(tmp_path, kills, seed, loop):
    """Digests of a run that was killed again and again, each time in a new process, beside those of one left alone."""
    chance = random.Random(seed)
    words = [*training(loop), "--env-steps", 2000 * (kills + 1), "--runs", tmp_path, "--id"]
    assert workhorse(*words, "straight", stdout=subprocess.DEVNULL).wait(120) == 0
    expected = digests(tmp_path / "straight")
    iteration_s = np.median(np.diff(read_metrics(RunFolder.open(tmp_path / "straight"))["wall_s"]))
    folder, killed = tmp_path / "killed", 0
    words = [*words, "killed"]
    while True:
        process = workhorse(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if killed < kills:
            began = _iterations(folder)
            deadline = time.monotonic() + 60
            while _iterations(folder) == began and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 2 * iteration_s))  # not so long that the run ends before it was killed enough
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
        code = process.wait(120)
        assert code in (0, -signal.SIGKILL), process.stderr.read()
        if code == 0:
            return expected, digests(folder), killed
        words = ["resume", folder, "--threads", chance.choice([1, 2]), "--quiet"]


def _iterations(folder):
    return checkpoint.saved_iterations(folder) if (folder / "manifest.json").exists() else []


@pytest.mark.parametrize("loop", list(LOOPS))
def test_a_run_killed_at_random_moments_goes_on_with_the_same_bits(tmp_path, loop):
    expected, found, killed = kill_and_resume(tmp_path, kills=2, seed=0, loop=loop)
    assert killed == 2 and found == expected and len(expected) > 20


@pytest.mark.slow
@pytest.mark.parametrize("loop", list(LOOPS))
def test_twenty_kills(tmp_path, loop):
    expected, found, killed = kill_and_resume(tmp_path, kills=20, seed=1, loop=loop)
    assert killed == 20 and found == expected


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path):
    words = [*(word for word in TRAIN if word != "--quiet"), "--env-steps", "1e9"]
    process = workhorse(*words, "--runs", tmp_path, "--id", "r", stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(_iterations(tmp_path / "r")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"workhorse resume {tmp_path / 'r'}" in said
    folder = RunFolder.open(tmp_path / "r")
    assert folder.status().state == "stopped"
    rows = read_metrics(folder)
    assert rows["iteration"][-1] == max(checkpoint.saved_iterations(folder)) == folder.status().iteration


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return begin(tmp_path_factory.mktemp("runs"), "r", "Hopper-v5", "openai-es", 600)


def newest(folder):
    """The algorithm of a run, and the actor of its newest checkpoint."""
    plan = train.plan_of(folder.manifest())
    loop = make_loop(plan, plan.spec(), 1)
    _, progress, _, _ = checkpoint.load_newest(folder, loop.start())
    loop.close()
    return loop.algorithm, loop.algorithm.actor(progress.state)


class TestTheFolder:
    def test_the_policy_artefact_acts_as_the_policy_in_training(self, run):
        folder, _ = run
        algorithm, actor = newest(folder)
        network = algorithm.begin(actor, -1)
        observations = np.random.default_rng(0).normal(size=(200, 11)) * 3
        expected = jax.vmap(lambda obs: algorithm.act(actor, network, obs, jax.random.key(0), explore=False)[0])(
            observations
        )
        found, _ = Policy.load(folder.path).predict(observations)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.std(found) > 0

    def test_that_of_a_policy_gradient_does_too(self, tmp_path):
        """With rectified units, unclipped observations, and a mean beyond the bounds now and then."""
        settings = {**ALGORITHMS["ppo"], "activation": "relu", "observation_clip": None}
        folder, _ = train.start(
            task="Hopper-v5",
            task_options=SHORT["Hopper-v5"],
            algorithm="ppo",
            settings=settings,
            env_steps=120,
            threads=1,
            schedule=QUICK,
            root=tmp_path,
        )
        algorithm, actor = newest(folder)
        observations = np.random.default_rng(0).normal(size=(200, 11)) * 30
        act = jax.vmap(lambda obs: algorithm.act(actor, (), obs, jax.random.key(0), explore=False)[0])
        found, _ = Policy.load(folder.path).predict(observations)
        np.testing.assert_allclose(found, act(observations), atol=1e-5, rtol=1e-5)
        assert np.std(found) > 0

    def test_predicting_needs_no_jax(self, run):
        program = (
            "import sys, numpy as np\nfrom workhorse import Policy\n"
            f"Policy.load({str(run[0].policy)!r}).predict(np.zeros(11))\n"
            "assert not {'jax', 'mujoco', 'gymnasium'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_everything_a_user_expects_is_there(self, run):
        folder, summary = run
        manifest = json.loads((folder.path / "manifest.json").read_text())
        assert manifest["settings"]["num_pairs"] == 4 and manifest["seed"] == 3
        assert manifest["versions"]["mujoco"] and manifest["hardware"]["cpu"]
        columns = set(read_metrics(folder).columns)
        assert {"env_steps", "training_return", "digest", "wall_s", "steps_per_second", "failed_episodes"} <= columns
        assert {"evaluation_return", "evaluation_steps"} <= columns
        assert list(Path(folder.tensorboard).glob("events*"))
        assert summary.simulated_s == pytest.approx(summary.env_steps * 0.008)
        assert summary.evaluation_steps > 0
        held = min(manifest["threads"], available_cores())  # of the machine's cores, from the first to the last save
        assert summary.core_hours == pytest.approx(held * summary.wall_s / 3600, rel=1e-9)
        assert summary.ledger == Ledger.of(folder) and summary.wall_s > summary.training_s > 0
        assert folder.status().state == "finished"

    def test_no_file_of_a_run_is_a_pickle(self, run):
        """Every file is of a format that is known by its content."""
        files = [file for file in run[0].path.rglob("*") if file.is_file()]
        assert len(files) > 8
        for file in files:
            assert format_of(file) is not None, f"{file} is of no format that is known"

    def test_evaluating_again_gives_the_same_returns_and_another_seed_others(self, run):
        folder, summary = run
        _, again, _ = train.evaluate_run(folder.path, episodes=4)
        assert tuple(again.returns) == summary.episode_returns
        _, other, _ = train.evaluate_run(folder.path, episodes=4, seed=99)
        assert tuple(other.returns) != summary.episode_returns

    def test_a_damaged_checkpoint_falls_back_and_says_so(self, tmp_path):
        begin(tmp_path, "r", "Hopper-v5", "ars", 600)
        folder = RunFolder.open(tmp_path / "r")
        expected, newest = digests(folder), max(checkpoint.saved_iterations(folder))
        state = Path(folder.checkpoints) / str(newest) / "state.safetensors"
        state.write_bytes(state.read_bytes()[:-7])
        said = []

        class Listener(train.Observer):
            def noted(self, sentence):
                said.append(sentence)

        train.resume(folder.path, observer=Listener())
        assert f"checkpoint of iteration {newest}" in said[0] and "damaged" in said[0]
        assert digests(folder) == expected


BAD = [
    ({"task": "Hoper-v5"}, "Unknown task 'Hoper-v5'. Did you mean Hopper-v5"),
    ({"algorithm": "es"}, "Unknown algorithm 'es'"),
    ({"settings": {"num_pear": 3}}, "Unknown option of openai-es 'num_pear'. Did you mean num_pairs"),
    ({"seed": -1}, r"seed must be in \[0, 2\*\*32\): got -1"),
    ({"env_steps": 0}, "budget must be at least 1"),
    ({"slots": 0}, "slots must be at least 1: got 0"),
    ({"threads": -1}, "threads must be at least 1"),
    ({"task_options": {"max_episode_step": 5}}, "max_episode_step"),
    ({"schedule": train.Schedule(evaluate_every=-1)}, "evaluate_every must be at least 0"),
    ({"schedule": train.Schedule(final_episodes=0)}, "at least 1 episode"),
    ({"schedule": train.Schedule(checkpoint_every_s=float("nan"))}, "checkpoint_every_s must be at least 0"),
    ({"schedule": train.Schedule(evaluate_every=9, stop_at_return=float("nan"))}, "stop_at_return must be a finite"),
    ({"schedule": train.Schedule(stop_at_return=9.0)}, "stop_at_return=9 needs evaluations .* evaluate_every is 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[str(change) for change, _ in BAD])
def test_bad_input_is_refused_before_anything_is_written(tmp_path, change, message):
    given = {"task": "Hopper-v5", "algorithm": "openai-es", "settings": {}, "env_steps": 10, "root": tmp_path / "runs"}
    with pytest.raises(UsageError, match=message):
        train.start(**given | change)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="permission denied"):
        begin(tmp_path, "r", "CartPole-v1", "ars", 10)


def test_a_run_is_not_gone_on_with_once_its_learning_rate_has_come_to_zero(tmp_path):
    """Its own budget always, and a longer one only where the annealing was set to be longer."""
    folder, _ = begin(tmp_path, "annealed", "CartPole-v1", "ppo", 600)
    train.resume(folder.path)
    with pytest.raises(UsageError, match=r"learning rate fall to zero at 600 steps.*--anneal-env-steps 601"):
        train.resume(folder.path, env_steps=601)


def test_a_second_interrupt_waits_for_the_last_save(tmp_path, monkeypatch):
    saved = TrainingRun._save

    def disturbed(run):
        if "stop" in asked:
            signal.raise_signal(signal.SIGINT)
        saved(run)

    asked = set()

    class Impatient(train.Observer):
        def iterated(self, row):
            if row["iteration"] == 3:
                asked.add("stop")
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TrainingRun, "_save", disturbed)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, "run", "CartPole-v1", "ppo", 600, observer=Impatient())
    folder = RunFolder.open(tmp_path / "run")
    assert folder.status().state == "stopped"
    assert max(checkpoint.saved_iterations(folder)) == len(read_metrics(folder)) == 3


def test_an_evaluation_says_what_it_passed_over_and_begins_in_a_whole_folder_only(tmp_path, monkeypatch):
    folder, _ = begin(tmp_path, "run", "CartPole-v1", "ppo", 180)
    newest = max(checkpoint.saved_iterations(folder))
    state = folder.path / "checkpoints" / str(newest) / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-3])
    said = []
    train.evaluate_run(folder.path, episodes=2, threads=1, noted=said.append)
    assert len(said) == 1 and f"iteration {newest}" in said[0] and "damaged" in said[0]
    shutil.rmtree(folder.evaluations)
    folder.evaluations.touch()
    monkeypatch.setattr(OnPolicyLoop, "evaluate", None)
    with pytest.raises(UsageError, match=r"Expected a folder in .*evaluations, got a file"):
        train.evaluate_run(folder.path, episodes=2, threads=1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"env_steps": "7e6"}, "env_steps must be a whole number: got '7e6'"),
        ({"env_steps": 10**20}, "less than 2\\*\\*62"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"slots": 4}, "acts in num_envs slots"),
        ({"settings": {"hidden": 64}}, "ppo.hidden must be whole numbers in a tuple: got 64"),
        ({"settings": {"num_envs": 8.5}}, "ppo.num_envs must be a whole number: got 8.5"),
        ({"settings": {"normalise_observations": "no"}}, "must be True or False: got 'no'"),
        ({"settings": {"reward_clip": "1"}}, "must be a number or None"),
        ({"settings": {"hidden": (10**6, 10**6)}}, "GiB at the least"),
        ({"settings": {"rollout_steps": 10**10, "minibatch_size": 10**10}}, "GiB at the least"),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(tmp_path, given, words):
    usual = {"task": "CartPole-v1", "algorithm": "ppo", "settings": {}, "env_steps": 100, "root": tmp_path}
    with pytest.raises(UsageError, match=words):
        train.start(**{**usual, **given})
    assert not list(tmp_path.iterdir())


def test_output_that_nobody_reads_stops_a_run_that_can_be_gone_on_with(tmp_path):
    words = [*TRAIN, "--env-steps", "1e6", "--runs", tmp_path, "--id", "unread"]
    words.remove("--quiet")
    process = workhorse(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 141 and b"Traceback" not in said, said
    assert RunFolder.open(tmp_path / "unread").status().state == "stopped"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_behind_the_output_is_one_sentence():
    with open("/dev/full", "w") as full:
        process = workhorse("tasks", stdout=full, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.decode().strip() == "workhorse tasks: standard output cannot be written: its disk is full."
