"""Wrong commands: each gets the answer that was meant, in one sentence, exit code 2, and leaves nothing behind."""

import json

import pytest

from workhorse.algorithms import registry
from workhorse.algorithms.other_names import OTHER_NAMES
from workhorse.api.tasks import PACKAGES, older_task
from workhorse.cli.hints import COMMAND_WORDS, OTHER_WAYS
from workhorse.cli.main import COMMANDS, main
from workhorse.cli.train import TrainOptions

PPO = "train CartPole-v1 --algorithm ppo"
SAC = "train Pendulum-v1 --algorithm sac"
TD3 = "train Pendulum-v1 --algorithm td3"
DQN = "train CartPole-v1 --algorithm dqn"
ES = "train CartPole-v1 --algorithm openai-es"

WRONG = {
    # names of options elsewhere
    f"{PPO} --lr 3e-4": "Unknown option --lr: here it is --learning-rate.",
    f"{ES} --lr=3e-4": "Unknown option --lr: here it is --learning-rate.",
    f"{PPO} --gamma .99": "here it is --discount.",
    f"{PPO} --gae-lambda .95": "here it is --trace.",
    f"{PPO} --gae_lambda .95": "Unknown option --gae_lambda: here it is --trace.",
    f"{PPO} --n-steps 256": "here it is --rollout-steps.",
    f"{PPO} --num_steps 256": "here it is --rollout-steps.",
    f"{PPO} --n-envs 8": "here it is --num-envs.",
    f"{PPO} --ent-coef 0": "here it is --entropy-weight.",
    f"{PPO} --vf-coef .5": "here it is --value-weight.",
    f"{PPO} --max-grad-norm .5": "here it is --gradient-clip.",
    f"{PPO} --clip-range .2": "here it is --ratio-clip.",
    f"{PPO} --clip-coef .2": "here it is --ratio-clip.",
    f"{PPO} --n-epochs 10": "here it is --num-epochs.",
    f"{PPO} --update-epochs 10": "here it is --num-epochs.",
    f"{PPO} --batch-size 64": "here it is --minibatch-size.",
    f"{PPO} --num-minibatches 4": "here it is --minibatch-size, which counts steps: num_envs times rollout_steps over",
    f"{PPO} --anneal-lr": "here it is --anneal-learning-rate.",
    f"{PPO} --norm-adv": "here it is --normalise-advantages.",
    f"{PPO} --net-arch 64 64": "here it is --hidden, which takes the units of each layer, as in --hidden 64 64.",
    f"{PPO} --normalize-observations": "Did you mean --normalise-observations",
    f"{ES} --sigma .1": "here it is --noise-std.",
    f"{ES} --pop-size 64": "here it is --num-pairs, which counts pairs, two members each.",
    "train CartPole-v1 --algorithm ars --n-delta 8": "here it is --num-directions.",
    "train CartPole-v1 --algorithm trpo --target-kl .01": "here it is --max-kl.",
    f"{PPO} --total-timesteps 1000": "here it is --env-steps.",
    f"{PPO} --algo ppo": "here it is --algorithm.",
    f"{PPO} --exp-name first": "here it is --id.",
    f"{PPO} --tensorboard-log logs": "here it is --runs, which is the folder of the runs, and each run writes for",
    f"{PPO} --eval-freq 1000": "here it is --evaluate-every, which counts environment steps.",
    f"{PPO} --save-freq 1000": "here it is --checkpoint-every-s, which counts seconds.",
    f"{PPO} --n-seeds 3": "here it is --seeds.",
    f"{PPO} --env-kwargs a=1": "here it is --task-option, which takes one name=value and may be repeated.",
    "evaluate r --n-episodes 3": "here it is --episodes.",
    # options of another algorithm
    f"{ES} --n-steps 5": "here it is --rollout-steps, an option of ddpg,",
    f"{ES} --num-envs 5": "a2c, ppo, ppo-m, ppo-noclip, reinforce, trpo, trpo+,",
    f"{PPO} --noise-std .1": "it is an option of ddpg, naf, td3, ars, canonical-es, ga, guided-es,",
    f"{PPO} --tau .01": "here it is --target-rate, an option of",
    # off-policy
    f"{SAC} --tau .01": "here it is --target-rate.",
    f"{SAC} --buffer-size 10": "here it is --replay-capacity.",
    f"{SAC} --learning-starts 10": "here it is --warmup-env-steps.",
    f"{SAC} --train-freq 10": "here it is --learn-every.",
    f"{SAC} --gradient-steps 1": "here it is --replay-ratio, which counts samples trained on for each",
    f"{SAC} --utd 1": "here it is --replay-ratio, which counts samples trained on for each",
    f"{SAC} --ent-coef .1": "here it is --temperature.",
    f"{SAC} --optimize-memory-usage": "the replay stores every observation once",
    f"{SAC} --policy-delay 2": "here it is --policy-every.",
    f"{SAC} --alpha .1": "here it is --temperature.",
    f"{TD3} --policy-delay 2": "here it is --policy-every.",
    f"{TD3} --target-policy-noise .1": "here it is --target-noise-std.",
    f"{TD3} --action-noise .1": "here it is --noise-std, which is a standard deviation, in units of half the range",
    f"{DQN} --target-update-interval 9": "here it is --target-every.",
    f"{DQN} --exploration-fraction .1": "here it is --exploration-env-steps, which counts environment steps: the",
    f"{DQN} --exploration-final-eps .1": "here it is --final-epsilon.",
    # done in another way
    f"{PPO} --device cuda": "simulation and learning run on this machine's processor, on every core; there is no other",
    f"{PPO} --cuda": "there is no other device to choose. Leave it out.",
    f"{PPO} --env CartPole-v1": "the task stands alone, without an option: `workhorse train TASK`.",
    f"{PPO} --capture-video": "it is a command of its own, after training: `workhorse video RUN`.",
    f"{PPO} --resume runs/r": "a run is continued by `workhorse resume RUN`.",
    f"{PPO} -v": "progress is shown anyway; --quiet leaves only the result.",
    f"{PPO} --verbose 1": "progress is shown anyway",
    f"{PPO} --buffer-size 10": "here it is --replay-capacity, an option of ddpg, naf, sac,",
    f"{PPO} --version": "`workhorse --version` prints the version.",
    # words
    "train CartPole-v1 ppo": "got the word 'ppo': to choose that algorithm, write --algorithm ppo.",
    "train CartPole-v1 seed=3": "write --seed 3, or --task-option seed=3 for an option of the task.",
    "eval runs/r": "Unknown command 'eval': here it is `workhorse evaluate`",
    "enjoy runs/r": "Unknown command 'enjoy': here it is `workhorse video`",
    "run CartPole-v1": "Unknown command 'run': here it is `workhorse train`",
    "tune CartPole-v1": "here it is `workhorse study`",
    "evalute runs/r": "Unknown command 'evalute'. Did you mean evaluate",
    "help evalute": "Unknown command 'evalute'. Did you mean evaluate",
    # values
    f"{PPO} --hidden 64,x": "--hidden must be whole numbers, as in 64 64: got '64,x'.",
    f"{PPO} --env-steps 1Q": "--env-steps must be a whole number: got '1Q'.",
    f"{PPO} --env-steps M": "--env-steps must be a whole number: got 'M'.",
    f"{PPO} --env-steps 1.5": "--env-steps must be a whole number: got '1.5'.",
    f"{PPO} --exchange none": "--exchange must be one of auto, parameters, scalars: got 'none'.",
    f"{PPO} --id": "--id needs a word, got none.",
    # tasks
    "train": "Expected the task, which is missing. Name one, as in `workhorse train CartPole-v1`; `workhorse",
    "train ppo CartPole-v1": "got the word 'CartPole-v1': a run has one task, which comes first, as in",
    "train ppo": "Expected a task, but ppo is an algorithm: write `workhorse train TASK --algorithm ppo`",
    "train cartpole-v1": "Unknown task 'cartpole-v1'. Did you mean CartPole-v1? `workhorse tasks`",
    "train cartpole": "Unknown task 'cartpole'. Did you mean CartPole-v1",
    "train Humanoid-v1": "Unknown task 'Humanoid-v1': its newest version is Humanoid-v5.",
    "train Pendulum-v0": "Unknown task 'Pendulum-v0': its newest version is Pendulum-v1.",
    "train MinAtar/Pong-v1": "MinAtar/Pong-v1 comes with the package minatar, which is not installed: "
    "`pip install minatar`",
    "train MiniGrid-Empty-5x5-v0": "comes with the package minigrid, which is not installed",
    "train study.yaml": "Expected a task, but study.yaml is a study: `workhorse study study.yaml` conducts it.",
    "train runs/first": "Expected a task, but runs/first is a run: `workhorse resume runs/first` continues it.",
    "train studies/many": "Expected a task, but studies/many is a study: `workhorse study studies/many` conducts it.",
    # algorithms
    "train CartPole-v1 --algorithm SAC": "Unknown algorithm 'SAC'. Did you mean sac",
    "train CartPole-v1 --algorithm TQC": "Workhorse has no TQC: the nearest it has is sac-n, and",
    "train CartPole-v1 --algorithm qrdqn": "Workhorse has no qrdqn: the nearest it has is c51",
    # before anything is connected to: nothing answers there
    "train CartPole-v1 --algorithm ppo --cluster 127.0.0.2:1": "ppo learns on one machine: --cluster plays",
    "train CartPole-v1 --algorithm nres --cluster 127.0.0.2:1": "nres learns on one machine: --cluster plays",
    "train CartPole-v1 --algorithm PPO": "Unknown algorithm 'PPO'. Did you mean ppo? `workhorse algorithms` lists",
    # runs
    "resume": "Expected the run, which is missing. Name one, as in runs/<id>; `workhorse runs` lists them.",
    "resume frst": "Expected a run or a study: there is no frst. Did you mean first?",
    "evaluate CartPole-v1": "Expected a run, but CartPole-v1 is a task. `workhorse runs` lists the runs, and",
    "evaluate ppo": "Expected a run, but ppo is an algorithm.",
    "report many2": "Expected a run or a study: there is no many2. Did you mean many?",
    "compare many mny": "Expected a study: there is no mny. Did you mean many?",
    "resume many": "is a study, not a run: use `workhorse study",
    "evaluate studies/many": "which has no manifest.json: it is no run",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with something like a run and something like a study."""
    place = tmp_path_factory.mktemp("work")
    for name, file in (("runs/first", "manifest.json"), ("studies/many", "study.json")):
        (place / name).mkdir(parents=True)
        (place / name / file).write_text(json.dumps({}))
    return place


@pytest.mark.parametrize(("line", "answer"), WRONG.items(), ids=list(WRONG))
def test_a_wrong_command_is_answered_with_the_right_one(folder, monkeypatch, capsys, line, answer):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert main(line.split()) == 2
    said = capsys.readouterr()
    assert answer in said.err
    assert said.err.startswith("workhorse ") and said.err.count("\n") == 1 and not said.out
    assert sorted(folder.rglob("*")) == before


def test_every_name_elsewhere_leads_to_an_option_or_command_that_is_there():
    ours = {name for algorithm in registry.entries() for name in registry.options(algorithm)}
    ours |= set(TrainOptions.__dataclass_fields__) | {"episodes"}
    assert {name.replace("-", "_") for name in OTHER_NAMES} <= ours
    assert set(COMMAND_WORDS.values()) <= set(COMMANDS) and not set(COMMAND_WORDS) & set(COMMANDS)
    ways = [name for names in OTHER_WAYS for name in names]
    assert len(ways) == len(set(ways)) and not set(ways) & {one for names in OTHER_NAMES.values() for one in names}
    options = [registry.options(algorithm).keys() for algorithm in registry.entries()]
    for name in {one for names in OTHER_NAMES.values() for one in names} - {"alpha"}:  # of an entropy, or of a step
        meant = [ours.replace("-", "_") for ours, names in OTHER_NAMES.items() if name in names]
        assert all(len(set(meant) & known) <= 1 for known in options), f"{name} leads to two answers"
    assert all(package and module for package, module in PACKAGES.values())


def test_a_task_of_another_package_that_is_there_is_named_with_its_module(monkeypatch, capsys):
    monkeypatch.setattr("workhorse.api.tasks.importlib.util.find_spec", lambda name: object())
    assert main(["train", "ALE/Pong-v5"]) == 2
    assert "is registered by the module ale_py: write it as ale_py:ALE/Pong-v5." in capsys.readouterr().err


def test_older_versions_are_told_of_the_newer_one_and_trained(tmp_path, capsys):
    words = "--algorithm hill-climb --num-candidates 1 --env-steps 1 --final-episodes 1 --evaluate-every 0"
    assert older_task("CartPole-v0") == "CartPole-v1"
    assert main(["train", "CartPole-v0", *words.split(), "--threads", "1", "--runs", str(tmp_path)]) == 0
    assert "CartPole-v0 is an older version of CartPole-v1" in capsys.readouterr().err


def test_a_run_is_found_by_its_bare_name(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["evaluate", "first"]) == 2
    assert "runs/first" in capsys.readouterr().err, "the damaged manifest is that of runs/first"
    (folder / "first").mkdir()
    assert main(["evaluate", "first"]) == 2
    assert "Expected a run in first," in capsys.readouterr().err, "what is there by the path itself comes first"
    (folder / "first").rmdir()


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["-v"], ["version"]])
def test_the_version_by_any_name(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("workhorse ")


@pytest.mark.parametrize("words", [[], ["help"], ["-h"], ["--help"]])
def test_help_lists_the_commands(words, capsys):
    assert main(words) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)


@pytest.mark.parametrize("words", [["help", "evaluate"], ["evaluate", "-h"]])
def test_help_of_a_command(words, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert not left.value.code and "usage: workhorse evaluate" in capsys.readouterr().out
