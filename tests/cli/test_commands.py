"""The command line: what it prints, its exit codes, and that its light commands import nothing heavy."""

import contextlib
import dataclasses
import io
import re
import subprocess
import sys

import pytest

from workhorse.algorithms.registry import entries
from workhorse.cli.main import COMMANDS, main
from workhorse.cli.options import parse
from workhorse.cli.train import TrainOptions
from workhorse.core.errors import UsageError

TINY = "--num-directions 2 --num-top-directions 1 --env-steps 60 --final-episodes 2 --task-option max_episode_steps=10"


def trained(tmp_path, *words):
    return main(["train", "CartPole-v1", "--algorithm", "ars", *TINY.split(), "--runs", str(tmp_path), *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of seed 3 named r: the folder it lies in, and what training it printed."""
    folder, said = tmp_path_factory.mktemp("runs"), io.StringIO()
    with contextlib.redirect_stdout(said):
        assert trained(folder, "--id", "r", "--seed", "3") == 0
    return folder, said.getvalue()


def test_a_run_from_training_to_evaluation(run, capsys):
    folder, said = run
    for expected in (
        "CartPole-v1 by ars, seed 3, 60 steps",
        "steps/s",
        "return ",
        "core time",
        "money",
        "simulated",
        "wall time",
    ):
        assert expected in said
    assert main(["runs", "--runs", str(folder)]) == 0
    assert "r " in (listed := capsys.readouterr().out) and "finished" in listed
    assert main(["evaluate", str(folder / "r"), "--episodes", "3"]) == 0
    assert "over 3 episodes" in capsys.readouterr().out
    assert main(["resume", str(folder / "r"), "--env-steps", "100", "--quiet"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_a_run_says_which_recipe_it_takes_or_that_none_is_known(run, tmp_path, capsys):
    assert "Recipe CartPole-v1/ars: chosen here" in run[1]
    assert main(["train", "Acrobot-v1", "--algorithm", "ars", *TINY.split(), "--runs", str(tmp_path)]) == 0
    assert "No recipe is known" in capsys.readouterr().out


def test_the_best_recipe_is_taken_and_named(tmp_path, capsys):
    words = "train Swimmer-v5 --env-steps 1 --final-episodes 1 --task-option max_episode_steps=2 --evaluate-every 0"
    assert main([*words.split(), "--runs", str(tmp_path)]) == 0
    assert "Recipe Swimmer-v5/" in capsys.readouterr().out


BAD = [
    ("train", "Expected the task, which is missing."),
    ("train Hopper-v5 --env-steps 7.5", "--env-steps must be a whole number: got '7.5'."),
    ("train CartPole-v1 extra", "Expected an option, got the word 'extra'."),
    ("train CartPole-v1 --algoritm ars", "Unknown option --algoritm. Did you mean --algorithm"),
    ("train CartPole-v1 --env-steps nan", "--env-steps must be a whole number: got 'nan'."),
    ("train CartPole-v1 --env_steps=many", "--env-steps must be a whole number: got 'many'."),
    ("train CartPole-v1 --algorithm openai-es --noise-std x --quiet", "--noise-std must be a number: got 'x'."),
    ("train CartPole-v1 --policy cnn", "--policy must be one of gru, linear, mlp: got 'cnn'."),
    ("train CartPole-v1 --cluster", "--cluster needs a word, got none."),
    ("worker", "Expected --join, which is missing."),
    ("worker --join x:1 --cores 0", "--cores must be at least 1: got 0."),
    ("worker --join x", "A cluster's address must be HOST:PORT, as in 10.0.0.5:6379: got 'x'."),
    ("train Hoper-v5", "Unknown task 'Hoper-v5'. Did you mean Hopper-v5"),
    ("train halfcheetah-v5", "Did you mean HalfCheetah-v5"),
    ("train Hopper-v5 --algorithm arz", "Unknown algorithm 'arz'. Did you mean ars"),
    ("train Hopper-v5 --env-steps 0", "budget must be at least 1 environment step"),
    ("train Hopper-v5 --env-steps -5", "budget must be at least 1 environment step"),
    ("train Hopper-v5 --noise-std -0.1", "noise_std must be a finite number above 0"),
    ("train CartPole-v1 --algorithm ppo --hidden", "--hidden needs at least one value, as in --hidden 64 64"),
    ("train Hopper-v5 --hidden 64", "hidden is for a policy with layers, but the policy is linear"),
    ("train CartPole-v1 --policy linear --hidden=64", "hidden is for a policy with layers, but the policy is linear"),
    ("train CartPole-v1 --algorithm ppo --reward-clip no", "--reward-clip must be a number or None: got 'no'."),
    ("train Hopper-v5 --task-option frame_skip", "must be written name=value"),
    ("train Hopper-v5 --task-option frame_skp=3", "frame_skip"),
    ("train Hopper-v5 --task-option frame_skip=0", "frame_skip"),
    ("train CartPole-v1 --algorithm openai-es --action-noise 0.1", "has 2 discrete ones"),
    ("train CartPole-v1 --seed -1", "The seed must be in"),
    ("resume missing", "missing"),
    ("evaluate missing", "missing"),
    ("video missing", "missing"),
    ("algorithms arz", "Did you mean ars"),
    ("trian Hopper-v5", "Unknown command 'trian'. Did you mean train"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_gets_a_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, line, message):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_id_that_is_taken_is_refused(run, capsys):
    assert trained(run[0], "--id", "r") == 2
    assert "exists" in capsys.readouterr().err


def test_an_internal_error_says_where_the_run_is(tmp_path, monkeypatch, capsys):
    from workhorse.training.evolve import Evolve

    def broken(self, *given):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Evolve, "iterate", broken)
    assert trained(tmp_path, "--id", "r") == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError: planted" in said and str(tmp_path / "r") in said


LIGHT = [
    "--help",
    "--version",
    "tasks",
    "algorithms",
    "algorithms ars",
    "completion bash",
    "runs",
    *(f"{name} --help" for name in COMMANDS),
    "train Hopper-v5 --algorithm ars --help",
    "train Hopper-v5 --show",
]


@pytest.mark.parametrize("line", LIGHT)
def test_light_commands_import_neither_jax_nor_a_simulator(line):
    program = (
        "import sys\nfrom workhorse.cli.main import main\n"
        f"try: main({line.split()!r})\nexcept SystemExit as exit: assert not exit.code\n"
        "heavy = {'jax', 'mujoco', 'gymnasium', 'polars', 'equinox', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


HELP = [*COMMANDS, *(f"train Hopper-v5 --algorithm {name}" for name in entries())]


@pytest.mark.parametrize("line", HELP)
def test_help_names_values_in_words_within_80_columns(line, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        main([*line.split(), "--help"])
    said = capsys.readouterr().out
    assert not left.value.code and said.startswith(f"usage: workhorse {line.split()[0]} [-h]")
    typed = r"\b(INT|FLOAT|STR|PATH|BOOL)\b|\{None|None\}|True,False|\(default: ?(None|True|False)?\)|None\|"
    assert not re.findall(typed, said)
    assert max(map(len, said.splitlines())) <= 80
    options = re.findall(r"^[│ ] (--[a-z-]+)(?:,.*?| (.*?))?(?:  | [│ ]$)", said, re.M)
    assert options or line.split()[0] in ("warnings", "tasks", "algorithms", "completion", "seal", "dataset")
    for flag, shown in options:
        kinds = r"(|whole number|whole number\|own|number|text|\{[a-zA-Z0-9,-]+\})( \.\.\.)?"
        assert re.fullmatch(kinds, shown), (flag, shown)


def test_whole_numbers_may_be_written_as_people_write_them(run, capsys):
    for words in ("--episodes 1", "--episodes .001k", "--episodes 1e0"):
        assert main(["evaluate", str(run[0] / "r"), *words.split()]) == 0
        assert "over 1 episodes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["1M"], 1_000_000),
        (["500k"], 500_000),
        (["2.5m"], 2_500_000),
        (["1B"], 10**9),
        (["7e6"], 7_000_000),
        (["7_000"], 7_000),
        (["1,000,000"], 1_000_000),
        (["9007199254740993"], 9007199254740993),
        (["-3"], -3),
    ],
)
def test_counts(words, expected):
    assert parse(TrainOptions, ["CartPole-v1", "--env-steps", *words]).env_steps == expected


@pytest.mark.parametrize("words", ["1.5", "1.0000001", "nan", "inf", "1kk", "M", "1,5", "", "0x10", "1e400"])
def test_no_counts(words):
    with pytest.raises(UsageError, match="--env-steps must be a whole number"):
        parse(TrainOptions, ["CartPole-v1", "--env-steps", words])


@pytest.mark.parametrize("words", ["64 32", "64,32", "64, 32", "[64,32]", "(64, 32)", "64 32,"])
def test_lists_may_be_written_with_commas(words):
    @dataclasses.dataclass
    class LayersOptions:
        hidden: tuple[int, ...] = (1,)
        last: float | None = None

    found = parse(LayersOptions, ["--hidden", *words.split(), "--last", "none"])
    assert found.hidden == (64, 32) and found.last is None
    assert parse(LayersOptions, ["--last", "3"]).hidden == (1,)


def test_help_of_train_shows_the_recipe_as_the_default():
    program = "from workhorse.cli.main import main; main(['train', 'Hopper-v5', '--help'])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stdout
    assert "--num-directions" in said and "(default: 8)" in said
