"""Training with the true value: it is the value, it is counted apart, and a stopped run goes on to the same bits."""

import pytest

from workhorse.diagnostics.true_value import with_true_value
from workhorse.runs import train
from workhorse.runs.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("compiled_once")

SMALL = {
    "num_envs": 8, "held_out_envs": 8, "rollout_steps": 64, "minibatch_size": 128, "num_epochs": 2, "hidden": (16,),
    "discount": 0.9, "anneal_env_steps": 4096,
}  # fmt: skip


def trained(root, id, iterations, on_policy=None):
    folder, _ = train.start(
        task="Pendulum-v1", algorithm="ppo", settings=SMALL, env_steps=512 * iterations, root=root, id=id, threads=1,
        schedule=train.Schedule(final_episodes=2, milestones=0), on_policy=on_policy,
    )  # fmt: skip
    return folder


def test_the_true_value_explains_returns_from_the_first_iteration_and_its_steps_are_counted_apart(tmp_path):
    with_it = read_metrics(trained(tmp_path, "true", 2, with_true_value(16)))
    without = read_metrics(trained(tmp_path, "agent", 2))
    name = "held_out_explained_variance_monte_carlo"
    assert min(with_it[name]) > 0.7 > 0.3 > max(without[name])
    assert with_it["env_steps"].to_list() == without["env_steps"].to_list() == [512, 1024]
    fit = 17 * 64 * 16  # a rollout for the scale of rewards, and sixteen
    assert with_it["held_out_steps"].to_list() == [512 + fit, 2 * (512 + fit)]
    assert with_it["fitted_steps"].to_list() == [fit, fit]


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    whole = read_metrics(trained(tmp_path, "whole", 3, with_true_value(3)))["digest"].to_list()
    stopped = trained(tmp_path, "stopped", 1, with_true_value(3))
    train.resume(stopped.path, env_steps=512 * 3, threads=1, on_policy=with_true_value(3))
    assert read_metrics(stopped)["digest"].to_list() == whole
    assert len(set(whole)) == 3


def test_a_fit_needs_rollouts(tmp_path):
    with pytest.raises(ValueError, match="3 rollouts at least: got 2"):
        trained(tmp_path, "few", 1, with_true_value(2))
