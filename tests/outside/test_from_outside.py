"""An algorithm is one file, wherever it lies: toys outside the package do what the package's own do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workhorse import Policy
from workhorse.runs.metrics import read_metrics

TOYS = Path(__file__).with_name("toy_algorithms.py")
KINDS = {"Guess": ("--num-guesses", "4"), "Climb": ("--num-pairs", "3"), "Scores": ("--num-envs", "3")}


@pytest.fixture
def here(tmp_path):
    """A folder with the toys' file in it, as a user has one, and nothing of it on the path."""
    shutil.copy(TOYS, tmp_path)
    return tmp_path


def workhorse(here, *words, status=0):
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    surroundings["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [
        sys.executable,
        "-c",
        "import sys; from workhorse.cli.main import main; sys.path.pop(0); sys.exit(main())",
    ]
    found = subprocess.run([*command, *words], cwd=here, env=surroundings, capture_output=True, text=True)
    assert found.returncode == status, found.stdout + found.stderr
    return found.stdout + found.stderr


def digests(folder):
    return read_metrics(folder)["digest"].to_list()


@pytest.mark.parametrize("toy", list(KINDS))
def test_it_trains_resumes_evaluates_exports_and_is_studied(here, toy):
    task = ("CartPole-v1", "--task-option", "max_episode_steps=30", "--algorithm", f"toy_algorithms:{toy}")
    quick = ("--evaluate-every", "0", "--final-episodes", "3", "--threads", "1", "--quiet", "--checkpoint-every-s", "0")
    workhorse(here, "train", *task, *KINDS[toy], *quick, "--env-steps", "900", "--id", "straight")
    workhorse(here, "train", *task, *KINDS[toy], *quick, "--env-steps", "300", "--id", "halves")
    workhorse(here, "resume", "runs/halves", "--env-steps", "900", "--threads", "1", "--quiet")
    assert digests(here / "runs/halves") == digests(here / "runs/straight")
    assert len(set(digests(here / "runs/straight"))) > 3
    assert "over 4 episodes" in workhorse(here, "evaluate", "runs/straight", "--episodes", "4")
    action, _ = Policy.load(here / "runs/straight").predict(np.zeros(4))
    assert action in (0, 1)
    workhorse(here, "export", "runs/straight", "--to", "onnx")
    assert list((here / "runs/straight").rglob("*.onnx"))
    workhorse(here, "report", "runs/straight")
    assert "<html" in (here / "runs/straight/report.html").read_text()
    study = {"tasks": ["CartPole-v1"], "algorithms": [f"toy_algorithms:{toy}"], "seeds": 2, "env_steps": 300}
    study |= {"task_options": {"CartPole-v1": {"max_episode_steps": 30}}, "evaluation_episodes": 2, "final_episodes": 3}
    (here / "study.yaml").write_text(json.dumps(study))
    assert "2 of 2" in workhorse(here, "study", "study.yaml", "--id", "s") or (here / "studies/s/report.html").exists()


def test_its_options_and_its_sentence_are_known_without_running_it(here):
    text = workhorse(here, "algorithms", "toy_algorithms:Guess")
    assert "keeps the best of some random policies" in text and "--num-guesses" in text
    assert "Random policies an iteration." in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("toy_algorithms:Gess", "toy_algorithms defines no class 'Gess'"),
        ("nothing_there:Guess", "found no nothing_there.py here or on the path"),
        ("../toy_algorithms:Guess", "is no name of a module"),
        ("openai_es", "Did you mean openai-es"),
    ],
)
def test_a_name_that_means_nothing_is_answered_in_a_sentence(here, name, words):
    said = workhorse(here, "train", "CartPole-v1", "--algorithm", name, status=2)
    assert words in said and "Traceback" not in said


def test_a_kind_of_experience_without_a_loop_is_an_error_of_the_algorithm(here):
    (here / "odd.py").write_text(
        TOYS.read_text().replace(
            "class Scores(_Linear, OnPolicy):", "class Scores(_Linear, OnPolicy):\n    consumes = dict"
        )
    )
    said = workhorse(here, "train", "CartPole-v1", "--algorithm", "odd:Scores", "--env-steps", "100", status=1)
    assert "Scores consumes" in said and "there is no loop" in said
