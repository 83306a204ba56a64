"""TensorBoard: training steps on the axis, the tags that users of Stable-Baselines3 know, and no point twice."""

import math
import re
from pathlib import Path

import pytest

from tests.runs.test_metrics_log import events
from workhorse.runs import train
from workhorse.runs.metric_words import groups, known_metrics, tagged
from workhorse.runs.metrics import MetricsLog, read_metrics

KNOWN = {
    "rollout/ep_rew_mean", "rollout/ep_len_mean", "train/loss", "train/approx_kl", "train/clip_fraction",
    "train/entropy_loss", "train/value_loss", "train/policy_gradient_loss", "train/explained_variance",
    "train/learning_rate", "time/fps", "time/total_timesteps", "time/time_elapsed", "eval/mean_reward",
    "eval/mean_ep_length",
}  # fmt: skip
"""Tags of Stable-Baselines3."""

SETTINGS = {"num_envs": 4, "rollout_steps": 16, "minibatch_size": 32, "num_epochs": 1, "entropy_weight": 0.5}
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of PPO that was resumed once."""
    root = tmp_path_factory.mktemp("runs")
    schedule = train.Schedule(evaluate_every=128, evaluation_episodes=2, final_episodes=2)
    folder, _ = train.start(
        task="CartPole-v1", algorithm="ppo", settings=SETTINGS | {"anneal_learning_rate": False}, env_steps=256,
        threads=1, schedule=schedule, root=root, id="ppo",
    )  # fmt: skip
    train.resume(folder.path, env_steps=512, threads=1)
    return folder.path


def test_every_row_is_sent_once_at_its_training_steps(run):
    scalars, _ = events(run)
    rows = read_metrics(run)
    assert rows["env_steps"].to_list() == [64 * number for number in range(1, 9)]
    names = {"train/approx_kl": "mean_kl", "time/total_timesteps": "env_steps", "time/fps": "steps_per_second"}
    for tag, name in names.items():
        sent = [(step, value) for step, found, value in scalars if found == tag]
        assert [step for step, _ in sent] == rows["env_steps"].to_list()
        assert [value for _, value in sent] == pytest.approx(rows[name].to_list())
    assert len({(step, tag) for step, tag, _ in scalars}) == len(scalars)


def test_the_tags_are_those_of_stable_baselines(run):
    scalars, _ = events(run)
    tags = {tag for _, tag, _ in scalars}
    assert tags >= KNOWN
    assert {tag.partition("/")[0] for tag in tags} == {"rollout", "train", "time", "eval", "health", "held_out"}
    assert not any(math.isnan(value) for _, tag, value in scalars if tag.startswith("rollout/"))


def test_a_loss_is_put_together_from_its_parts(run):
    scalars, _ = events(run)
    row = read_metrics(run).row(-1, named=True)
    last = {tag: value for step, tag, value in scalars if step == row["env_steps"]}
    assert last["train/loss"] == pytest.approx(-row["surrogate"] + 0.5 * row["value_loss"] - 0.5 * row["entropy"])
    assert last["train/entropy_loss"] == pytest.approx(-row["entropy"])
    assert last["train/policy_gradient_loss"] == pytest.approx(-row["surrogate"])


def test_what_a_crash_sent_too_much_is_taken_back(tmp_path):
    log = MetricsLog(tmp_path)
    for number in range(1, 6):
        log.append(number, {"env_steps": 100 * number, "a": float(number)})
    log.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-3])  # killed while it wrote
    other = tmp_path / "tensorboard" / "notes.txt"
    other.write_text("mine")
    outside = tmp_path / "outside.tfevents.1"
    outside.write_bytes(file.read_bytes())
    (tmp_path / "tensorboard" / "linked.tfevents.1").symlink_to(outside)
    kept = outside.read_bytes()
    log = MetricsLog(tmp_path, resume_from=2)
    for number in (3, 4):
        log.append(number, {"env_steps": 100 * number, "a": 10.0 * number})
    log.close()
    (tmp_path / "tensorboard" / "linked.tfevents.1").unlink()
    other_text = other.read_text()
    other.unlink()
    scalars, purges = events(tmp_path)
    sent = [(step, value) for step, tag, value in scalars if tag == "train/a"]
    assert sent == [(100, 1), (200, 2), (300, 30), (400, 40)]
    assert purges == [201]
    assert (other_text, outside.read_bytes()) == ("mine", kept), "nothing else is touched, and no link is followed"


def test_iterations_without_the_end_of_an_episode_have_no_point():
    nothing = {"training_return": math.nan, "episode_length": math.nan, "episodes": 0, "value_loss": math.nan}
    sent = tagged(nothing, {})
    assert sent.keys() == {"rollout/episodes", "train/value_loss"}, "but what diverged is seen"


def test_every_metric_has_words_and_a_place():
    for name, metric in known_metrics().items():
        assert metric.group in groups(), name
        assert metric.title and metric.meaning.endswith("."), name
        assert not metric.beside or metric.beside in known_metrics(), name
        assert not metric.tag or re.fullmatch(
            r"(rollout|train|time|eval|health|cluster|imitation)/[a-z_]+", metric.tag
        ), name


def test_the_documents_list_every_metric_with_its_tag():
    text = REFERENCE.read_text()
    for name, metric in known_metrics().items():
        sent = {"negated": "negated", "exponential": "its exponential"}.get(metric.sent)
        tag = f"`{metric.tag}`" + (f", {sent}" if sent else "") if metric.tag else "not sent"
        assert f"| `{name}` | {tag} | {metric.meaning} |" in text, name


@pytest.mark.parametrize("algorithm", ["ppo", "openai-es"])
def test_metrics_of_our_own_algorithms_have_words(algorithm):
    old = Path(__file__).parent / "old_runs" / algorithm
    for name in read_metrics(old).columns:
        assert name.removeprefix("held_out_") in known_metrics() or name == "digest", name


def test_metrics_that_warnings_read_have_words():
    """What a warning names, a user looks for on the page."""
    rules = Path(__file__).parents[2] / "workhorse" / "runs" / "warnings"
    read = {
        name
        for file in rules.glob("*.py")
        for name in re.findall(r'rows\.(?:newest|last|all)\("([a-z_]+)"', file.read_text())
    }
    assert len(read) > 15
    known = known_metrics()
    assert not [name for name in read if name not in known and name.removeprefix("held_out_") not in known]
