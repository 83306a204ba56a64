"""One place where settings are resolved: defaults, recipe, user."""

import pytest

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import Recipe, recipe
from workhorse.algorithms.settings import merged_settings, usual_settings
from workhorse.api.setup import resolve
from workhorse.core.errors import UsageError
from workhorse.studies.study_file import plan_of

HOPPER = Recipe("Hopper-v5", "ppo", {"hidden": [32, 32], "discount": 0.9}, 5_000, "a test")


def test_a_user_s_setting_comes_before_the_recipe_s_and_that_before_the_default():
    assert usual_settings("ppo", None)["discount"] == registry.options("ppo")["discount"].default
    assert usual_settings("ppo", HOPPER)["discount"] == 0.9
    assert merged_settings("ppo", HOPPER, {}) == {"hidden": (32, 32), "discount": 0.9}
    assert merged_settings("ppo", HOPPER, {"discount": 0.8}) == {"hidden": (32, 32), "discount": 0.8}


def test_a_setting_given_as_its_default_overrules_the_recipe():
    default = registry.options("ppo")["discount"].default
    assert "discount" not in merged_settings("ppo", HOPPER, {"discount": default})


def test_layers_of_a_recipe_are_left_out_where_the_policy_is_linear():
    assert merged_settings("ppo", HOPPER, {"policy": "linear"}) == {"policy": "linear", "discount": 0.9}
    with pytest.raises(UsageError, match="hidden is for a policy with layers, but the policy is linear"):
        merged_settings("ppo", HOPPER, {"policy": "linear", "hidden": (8,)})


def test_a_misspelt_setting_is_named_with_the_nearest():
    with pytest.raises(UsageError, match=r"Unknown option of ppo 'discout'\. Did you mean discount"):
        merged_settings("ppo", None, {"discout": 0.9})


def test_a_run_takes_algorithm_budget_and_evaluations_from_the_best_recipe():
    setup = resolve("Swimmer-v5", settings={})
    assert setup.recipe is not None
    assert (setup.algorithm, setup.env_steps) == (setup.recipe.algorithm, setup.recipe.env_steps)
    assert setup.evaluate_every == setup.env_steps // 10
    assert resolve("Swimmer-v5", settings={}, env_steps=7, stop_at_return=3.0).evaluate_every == 1
    assert resolve("Swimmer-v5", settings={}, evaluate_every=0).evaluate_every == 0


def test_a_study_resolves_its_settings_like_a_run():
    """A linear policy in a study kept the layers of the task's recipe, which a run leaves out."""
    known = recipe("HalfCheetah-v5", "openai-es")
    assert known is not None
    plan = plan_of(
        {"tasks": "HalfCheetah-v5", "algorithms": "openai-es", "settings": {"openai-es": {"policy": "linear"}}}
    )
    given = {"policy": "linear"}
    assert plan.jobs()[0].settings == resolve("HalfCheetah-v5", "openai-es", settings=given).settings
