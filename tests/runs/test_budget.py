"""What a run does beyond its budget is said before it begins, and evaluations keep to a share of the budget."""

import itertools

import pytest

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import recipe
from workhorse.api.setup import _time_limit, resolve
from workhorse.cli.main import main
from workhorse.core.spec import Box, EnvSpec
from workhorse.environments.registry import TASKS
from workhorse.runs.budget import EVALUATED_SHARE, LEAST_FINAL, budget_notes, usual_evaluations
from workhorse.runs.schedule import Schedule

SPEC = EnvSpec("Some-v0", Box.unbounded(2), Box((-1.0,), (1.0,)), 1000)
PPO = registry.make("ppo", SPEC, {"num_envs": 8, "rollout_steps": 256})
A2C = registry.make("a2c", SPEC, {"num_envs": 2, "rollout_steps": 16})
ES = registry.make("openai-es", SPEC, {"num_pairs": 8})


@pytest.mark.parametrize("limit", [1, 200, 500, 1000, 27_000])
@pytest.mark.parametrize("env_steps", [1, 100, 5000, 20_000, 99_999, 100_000, 259_999, 10**6, 10**8])
def test_evaluations_take_no_more_than_their_share_of_the_budget(env_steps, limit):
    every, episodes, final = usual_evaluations(env_steps, limit)
    number = env_steps // every if every else 0
    assert final >= LEAST_FINAL and episodes >= 4 and number <= 10
    if final > LEAST_FINAL or number:
        assert (number * episodes + final) * limit <= EVALUATED_SHARE * env_steps
    if 260 * limit <= EVALUATED_SHARE * env_steps:
        assert (every, episodes, final) == (max(env_steps // 10, 1), 16, 100)


def test_a_larger_budget_affords_no_fewer_episodes():
    found = [usual_evaluations(env_steps, 1000) for env_steps in range(1000, 300_000, 1000)]
    for fewer, more in itertools.pairwise(found):
        assert fewer.final_episodes <= more.final_episodes


@pytest.mark.parametrize(("task", "algorithm"), [("CartPole-v1", "ppo"), ("HalfCheetah-v5", "openai-es")])
def test_recipes_are_evaluated_as_they_were_published(task, algorithm):
    known, setup = recipe(task, algorithm), resolve(task, algorithm, settings={})
    assert known is not None
    found = (setup.evaluate_every, setup.evaluation_episodes, setup.final_episodes)
    assert found == (known.env_steps // 10, 16, 100)


def test_the_time_limit_is_the_task_s_or_the_user_s_or_a_thousand():
    def final(task, **options):
        return resolve(task, "ars", settings={}, env_steps=26_000, task_options=options).final_episodes

    assert final("CartPole-v1") == 20 and final("CartPole-v1", max_episode_steps=100) == 100
    assert final("module:Unknown-v0") == 10


def test_the_limits_of_our_own_tasks_are_those_of_gymnasium():
    import gymnasium

    for task in TASKS:
        assert _time_limit(task, {}) == gymnasium.registry[task].max_episode_steps, task


def test_what_the_user_chose_has_the_last_word():
    def found(**given):
        setup = resolve("Hopper-v5", "ars", settings={}, env_steps=100, **given)
        return setup.evaluate_every, setup.evaluation_episodes, setup.final_episodes

    assert found() == (0, 16, 10)
    assert found(evaluate_every=50) == (50, 16, 10)
    assert found(evaluation_episodes=3, final_episodes=500) == (0, 3, 500)
    assert found(stop_at_return=5.0) == (10, 16, 10), "it looks at evaluations"
    assert found(final_episodes=0)[2] == 0, "which is refused before the run begins"


def test_an_iteration_larger_than_the_budget_is_said():
    (note,) = budget_notes(PPO, 100, Schedule(final_episodes=1))
    assert note == "An iteration of ppo takes 2,048 steps, more than --env-steps 100: the run will train 2,048."
    (note,) = budget_notes(ES, 100, Schedule(final_episodes=10))
    assert note.startswith("An iteration of openai-es plays 16 episodes of up to 1,000 steps, which may be more than")
    assert "train up to 16,000" in note
    assert budget_notes(PPO, 2048, Schedule(final_episodes=2)) == []
    assert budget_notes(ES, 16_000, Schedule(final_episodes=16)) == []


def test_that_training_episodes_are_cut_is_said_and_counted():
    capped, beyond = (registry.make("ars", SPEC, {"episode_cap": cap}) for cap in (50, 1000))
    (note,) = budget_notes(capped, 64 * 50, Schedule(final_episodes=1))
    assert note.startswith("Training episodes are cut after 50 steps at first")
    _, note = budget_notes(capped, 64 * 50 - 1, Schedule(final_episodes=1))
    assert "of up to 50 steps, which may be more than --env-steps 3199" in note
    assert budget_notes(beyond, 64_000, Schedule(final_episodes=1)) == []


def test_a_last_evaluation_larger_than_the_training_is_said():
    (note,) = budget_notes(PPO, 5000, Schedule(final_episodes=6))
    assert "The last evaluation plays 6 episodes of up to 1,000 steps, up to 6,000 beside the 5,000" in note
    (note,) = budget_notes(A2C, 100, Schedule(final_episodes=1))
    assert note == "The last evaluation plays an episode of up to 1,000 steps, up to 1,000 beside the 100 of training."
    assert budget_notes(PPO, 6000, Schedule(final_episodes=6)) == []
    assert len(budget_notes(PPO, 100, Schedule(final_episodes=100))) == 2


def test_the_command_line_says_it_before_the_first_iteration(tmp_path, capsys):
    words = "train CartPole-v1 --algorithm ars --env-steps 10 --max-episode-steps 5 --threads 1 --id r --quiet --runs"
    assert main([*words.split(), str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "An iteration of ars plays 16 episodes of up to 5 steps, which may be more than --env-steps 10" in said
