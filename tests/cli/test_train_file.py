"""`workhorse train --show` prints a file, and `--config` reads one strictly."""

import dataclasses

import pytest
import yaml

import workhorse
from workhorse.cli.main import main
from workhorse.cli.train import _read, _setup


def setup_of(line):
    return _setup(_read(line.split()))


def shown(line, capsys):
    assert main([*line.split(), "--show"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "train Hopper-v5",
        "train CartPole-v1",
        "train HalfCheetah-v5 --algorithm ppo --hidden 8 8 --no-anneal-learning-rate --seed 4 --reward-clip None",
        "train HalfCheetah-v5 --algorithm openai-es --policy linear",
        "train CartPole-v1 --wrapper a:B(2) --frame-stack 2 --max-episode-steps 9 --task-option a=True",
        "train Swimmer-v5 --stop-at-return 9.5 --slots 4 --evaluate-every 0 --id x --runs other",
    ],
)
def test_what_is_shown_is_a_file_of_the_same_run(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(shown(line, capsys))
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]
    kept, typed = setup_of("--config my.yaml"), setup_of(line.removeprefix("train "))
    assert dataclasses.replace(kept, given=typed.given) == typed


def test_what_is_shown_says_where_each_setting_comes_from(capsys):
    lines = shown("train HalfCheetah-v5 --algorithm ppo --hidden 8 8 --env-steps 1e5", capsys).splitlines()
    notes = {line.partition(":")[0]: line.partition("#")[2].strip() for line in lines if not line.startswith("#")}
    assert notes["hidden"] == notes["algorithm"] == notes["env_steps"] == "yours"
    assert (notes["num_envs"], notes["discount"]) == ("recipe", "")
    assert notes["evaluate_every"] == "10 evaluations of 6 episodes"  # as many as the budget affords
    assert lines[1].startswith("# recipe HalfCheetah-v5/ppo: ")


def test_all_options_are_shown(capsys):
    found = yaml.safe_load(shown("train CartPole-v1 --algorithm ppo", capsys))
    assert set(workhorse.algorithms.registry.options("ppo")) <= set(found)
    assert {"task", "algorithm", "seed", "env_steps", "slots", "threads", "final_episodes"} <= set(found)


def test_what_is_typed_comes_before_the_file(tmp_path):
    (tmp_path / "my.yaml").write_text(
        "task: CartPole-v1\nalgorithm: ppo\nseed: 3\ndiscount: 0.9\nenv_steps: 1e4\nmax_episode_steps: 50\n"
        "task_options: {sutton_barto_reward: true}\n"
    )
    config = f"--config {tmp_path / 'my.yaml'}"
    kept = setup_of(config)
    assert (kept.task, kept.algorithm, kept.seed, kept.env_steps) == ("CartPole-v1", "ppo", 3, 10_000)
    assert kept.given == {"discount": 0.9}
    typed = setup_of(f"Pendulum-v1 {config} --seed 4 --discount 0.8 --max-episode-steps 60 --algorithm a2c")
    assert (typed.task, typed.algorithm, typed.seed, typed.env_steps) == ("Pendulum-v1", "a2c", 4, 10_000)
    assert typed.given == {"discount": 0.8}
    assert typed.task_options == {"sutton_barto_reward": True, "max_episode_steps": 60}


def test_a_file_may_be_json_and_the_task_may_be_typed(tmp_path):
    (tmp_path / "my.json").write_text('{"algorithm": "ars", "num_directions": 2}')
    assert setup_of(f"Acrobot-v1 --config={tmp_path / 'my.json'}").settings == {"num_directions": 2}


BAD = [
    ("sed: 3", "Unknown option of ppo 'sed'. Did you mean seed"),
    ("n_steps: 3", "Unknown option of ppo 'n_steps': in Workhorse it is rollout_steps. It is in my.yaml."),
    ("task_option: [a=1]", "Unknown option of ppo 'task_option'. Did you mean task_options"),
    ("config: other.yaml", "Unknown option of ppo 'config'"),
    ("seed: many", "Expected `seed` in my.yaml to be a whole number, got 'many'. Correct it; `workhorse train TASK"),
    ("seed: 2.5", "Expected `seed` in my.yaml to be a whole number, got 2.5"),
    ("seed: true", "Expected `seed` in my.yaml to be a whole number, got True"),
    ("env_steps: [1]", "Expected `env_steps` in my.yaml to be a whole number or"),
    ("discount: high", "Expected `discount` in my.yaml to be a finite number, got 'high'"),
    ("hidden: 64", "Expected `hidden` in my.yaml to be"),
    ("policy: cnn", "Expected `policy` in my.yaml to be one of"),
    ("task_options: 3", "Expected `task_options` in my.yaml to be a table, got 3"),
    ("wrappers: a:B", "Expected `wrappers` in my.yaml to be a list, got 'a:B'"),
    ("algorithm: [ppo]", "Expected `algorithm` in my.yaml to be text or"),
    ("algorithm: pppo", "Unknown algorithm 'pppo'. Did you mean ppo"),
    ("task: CartPol-v1", "Unknown task 'CartPol-v1'. Did you mean CartPole-v1"),
    ("seed: 1\nseed: 2", "'seed' is there twice"),
    ("seed: [", "Expected options of a run in YAML in my.yaml, but it cannot be read"),
    ("- seed", "Expected options of a run in YAML in my.yaml, got no table"),
    ("seed: !!python/object/apply:os.system [touch ran]", "could not determine a constructor for the tag"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text for text, _ in BAD])
def test_a_bad_file_gets_a_sentence_with_the_file_and_the_name(tmp_path, monkeypatch, capsys, text, message):
    monkeypatch.chdir(tmp_path)
    usual = {"task": "task: CartPole-v1\n", "algorithm": "algorithm: ppo\n"}
    (tmp_path / "my.yaml").write_text("".join(line for name, line in usual.items() if f"{name}:" not in text) + text)
    if text.startswith("- "):
        (tmp_path / "my.yaml").write_text(text)
    assert main(["train", "--config", "my.yaml"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


def test_a_file_that_is_not_there_or_names_no_task_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "CartPole-v1", "--config", "missing.yaml"]) == 2
    assert "Expected options of a run in missing.yaml, which does not exist." in capsys.readouterr().err
    (tmp_path / "my.yaml").write_text("seed: 3")
    assert main(["train", "--config", "my.yaml"]) == 2
    assert "Expected the task, which is missing." in capsys.readouterr().err
    assert main(["train", "CartPole-v1", "--config"]) == 2
    assert "--config needs a word, got none." in capsys.readouterr().err


def test_a_run_by_a_file_records_what_makes_it_again_without_the_file(tmp_path):
    (tmp_path / "my.yaml").write_text(
        "task: CartPole-v1\nalgorithm: ars\nnum_directions: 2\nnum_top_directions: 1\nenv_steps: 60\n"
        f"final_episodes: 2\nevaluate_every: 0\nmax_episode_steps: 10\nruns: {tmp_path}\nid: r\nquiet: true\n"
    )
    assert main(["train", "--config", str(tmp_path / "my.yaml"), "--seed", "3"]) == 0
    run = workhorse.Run.open(tmp_path / "r")
    assert (run.seed, run.settings["num_directions"]) == (3, 2)
    assert "--config" not in run.manifest.command
    again = dict(zip(run.manifest.command, run.manifest.command[1:], strict=False))
    assert (again["--seed"], again["--num-directions"]) == ("3", "2")


def test_several_seeds_are_read_from_a_file_too(tmp_path, monkeypatch):
    (tmp_path / "my.yaml").write_text("task: CartPole-v1\nalgorithm: ars\nseeds: 3\nnum_directions: 2\n")
    found = []
    monkeypatch.setattr("workhorse.cli.train._train_seeds", lambda options, seeds, *rest: found.append(seeds) or 0)
    assert main(["train", "--config", str(tmp_path / "my.yaml")]) == 0
    assert found == [3]
