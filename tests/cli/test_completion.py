"""Completion: the printed script, run by the shell itself."""

import contextlib
import io
import shlex
import shutil
import subprocess

import pytest

from workhorse.algorithms.registry import entries, options
from workhorse.cli.main import COMMANDS, main
from workhorse.environments.registry import TASKS


@pytest.fixture(scope="module")
def scripts():
    found = {}
    for shell in ("bash", "zsh", "fish"):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main(["completion", shell]) == 0
        found[shell] = said.getvalue()
    return found


@pytest.fixture
def complete(scripts, tmp_path):
    """What bash offers after the words of a line, of which the last is being typed."""
    for name, file in (("runs/one", "manifest.json"), ("runs/two", "manifest.json"), ("studies/many", "study.json")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).touch()
    (tmp_path / "runs" / "no-run").mkdir()

    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")

    def offered(line):
        words = line.split(" ")
        quoted = " ".join(map(shlex.quote, words))
        program = f"{scripts['bash']}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _workhorse\n"
        program += "printf '%s\\n' ${COMPREPLY[@]+\"${COMPREPLY[@]}\"}"
        done = subprocess.run(
            [bash, "-u", "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"PATH": ""},  # nothing is started
        )
        assert not done.stderr
        return done.stdout.split()

    return offered


def test_commands(complete):
    assert complete("workhorse ") == [*COMMANDS, "help", "--help", "--version"]
    assert complete("workhorse di") == ["diagnose"]
    assert complete("workhorse help dia") == ["diagnose"]


def test_tasks_and_algorithms(complete):
    assert complete("workhorse train ") == list(TASKS)
    assert complete("workhorse train Half") == ["HalfCheetah-v5"]
    assert complete("workhorse tasks Pend") == ["Pendulum-v1"]
    assert complete("workhorse train CartPole-v1 --algorithm ") == list(entries())
    assert complete("workhorse algorithms tr") == ["trpo", "trpo+"]
    assert complete("workhorse train --quiet Half") == ["HalfCheetah-v5"]
    assert complete("workhorse train --seed ") == []


def test_options_of_commands_and_of_the_algorithm_named(complete):
    assert complete("workhorse evaluate runs/one --ep") == ["--episodes"]
    assert complete("workhorse train CartPole-v1 --algorithm ars --num-") == [
        "--num-directions",
        "--num-top-directions",
    ]
    assert complete("workhorse train CartPole-v1 --num-pai") == ["--num-pairs"]
    for name in entries():
        found = complete(f"workhorse train CartPole-v1 --algorithm {name} --")
        assert {f"--{option.replace('_', '-')}" for option in options(name)} < set(found)
        assert {"--env-steps", "--cluster", "--quiet", "--no-quiet"} < set(found)


def test_values(complete):
    assert complete("workhorse train CartPole-v1 --policy ") == ["linear", "mlp", "gru"]
    assert complete("workhorse resume runs/one --cluster ") == ["auto", "local"]
    assert complete("workhorse export runs/one --to ") == ["onnx"]
    assert complete("workhorse completion z") == ["zsh"]


def test_folders_are_those_there_when_tab_is_pressed(complete, tmp_path):
    assert complete("workhorse evaluate ") == ["runs/one", "runs/two"]
    assert complete("workhorse compare ") == ["studies/many"]
    assert complete("workhorse report ") == ["runs/one", "runs/two", "studies/many"]
    assert complete("workhorse resume runs/t") == ["runs/two"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_their_script(scripts, shell):
    assert "workhorse" in scripts[shell] and "HalfCheetah-v5" in scripts[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=scripts[shell], text=True, check=True)


def test_fish_is_told_of_every_command_and_option(scripts):
    for name in COMMANDS:
        assert f"-a {name} -d " in scripts["fish"]
    assert "-n '__fish_seen_subcommand_from train' -l num-pairs -r" in scripts["fish"]
    assert "-n '__fish_seen_subcommand_from train' -l policy -x -a 'linear mlp gru'" in scripts["fish"]


def test_an_unknown_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "the shell must be one of bash, fish, zsh: got 'tcsh'." in capsys.readouterr().err
