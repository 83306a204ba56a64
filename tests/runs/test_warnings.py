"""Warnings: what each rule sees and does not see, how long it waits, and what a run does with it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workhorse.cli.main import main
from workhorse.core.spec import Box, EnvSpec
from workhorse.runs import train
from workhorse.runs.folder import RunFolder
from workhorse.runs.warnings import OTHER_RULES, RULES, Rows, Watch, preflight, read_warnings
from workhorse.runs.warnings.off_policy import highest_value
from workhorse.runs.warnings.offline import RULES as OFFLINE_RULES

CONFIGURATION = {"discount": 0.99, "max_kl": None}


def healthy(iterations: int = 150, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of a run that learns: what a sound run's metrics look like, with their usual noise."""
    rng = np.random.default_rng(seed)
    for number in range(1, iterations + 1):
        learnt = number / iterations
        row = {
            "iteration": number,
            "env_steps": 1000 * number,
            "episodes": 5,
            "truncated_early": 0,
            "terminated_at_clock": 0,
            "training_return": 500 * learnt + rng.normal(0, 20),
            "reward_mean": 1.0,
            "observation_scale": 1.5,
            "observations_clipped": 0.0,
            "rewards_clipped": 0.0,
            "saturated_actions": 0.2,
            "dead_units": 0.0,
            "log_prob_gap": 1e-6,
            "noise_across_slots": 1 + rng.normal(0, 0.1),
            "noise_over_time": rng.normal(0, 0.02),
            "noise_level": rng.normal(),
            "td_error_mean": rng.normal(0, 0.003),
            "td_error_spread": 0.1,
            "value_mean": 2.0,
            "value_spread": 0.8,
            "held_out_explained_variance_monte_carlo": 0.7,
            "held_out_monte_carlo_variance": 0.6,
            "monte_carlo_variance": 0.6,
            "mean_kl": 0.008,
            "held_out_mean_kl": 0.009,
            "gradient_signal": rng.normal(0.2, 0.3),
            "gradient_noise": 1.0,
            "gradient_norm": 0.5,
            "parameter_norm": 12.0,
            "surrogate": 0.01,
            "surrogate_gain": 0.01,
            "held_out_surrogate_gain": rng.normal(0.005, 0.01),
            "entropy": 1.4 - learnt,
        }
        if number % 15 == 0:
            row |= {"evaluation_return": 500 * learnt, "evaluation_return_std": 20.0}
        yield row


def warned_of(changes: dict[str, Any], configuration: dict[str, Any] | None = None) -> list[str]:
    """Names of the warnings when these columns of a healthy run are changed; a function gets (number, row)."""
    watch = Watch({**CONFIGURATION, **(configuration or {})})
    for row in healthy():
        for name, change in changes.items():
            row[name] = change(row["iteration"], row) if callable(change) else change
            if row[name] is None:
                del row[name]
        watch.see(row)
    return [warned.name for warned in watch.given]


def flat(number: int, row: dict[str, Any]) -> float:
    """A return that gains nothing."""
    return 20.0 + np.random.default_rng(number).normal()


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_is_warned_of_nothing(seed: int) -> None:
    watch = Watch(CONFIGURATION)
    for row in healthy(seed=seed):
        assert watch.see(row) == []


OWN_REWARDS = {"reward_max": 1.0, "reward_min": 1.0, "truncated_episodes": 0}
REPLAY = {
    "updates": lambda number, row: 250 * number,
    "replay_rows": lambda number, row: 1000 * number,
    "truncated_episodes": 0,
    "sampled_terminals": 0.0,
}
RECENT = {"recent_value": 90.0, "recent_return": 20.0, "recent_return_spread": 5.0}
HOT = {"temperature": lambda number, row: 0.1 * 1.1**number, "entropy": 0.6, "highest_entropy": 0.69}

FAULTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("not-finite", {"value": math.nan}, {}),
    ("not-finite", {"value": math.nan, "updates": lambda number, row: number}, {}),
    ("saturated-actions", {"saturated_actions": 0.6, "training_return": flat, "replay_rows": 1000.0}, {}),
    ("value-above-rewards", {"value": 150.0, **OWN_REWARDS}, {}),
    ("value-above-rewards", {"value": 50.0, "value_max": 150.0, **OWN_REWARDS}, {}),
    ("value-above-returns", RECENT, {}),
    ("temperature", HOT, {}),
    ("support-ends", {"support_end_mass": 0.2}, {}),
    ("dead-replay", REPLAY, {"batch_size": 64}),
    ("not-finite", {"td_error_spread": lambda number, row: math.nan if number > 50 else 0.1}, {}),
    ("exploding", {"gradient_norm": lambda number, row: 0.5 if number < 60 else 80.0}, {}),
    ("stale-log-probabilities", {"log_prob_gap": 0.5}, {}),
    ("repeated-noise", {"noise_across_slots": 8.0}, {}),
    ("repeated-noise", {"noise_over_time": 0.9}, {}),
    ("repeated-noise", {"noise_level": 0.37}, {}),
    ("saturated-actions", {"saturated_actions": 0.99, "training_return": flat}, {}),
    ("actions-at-one-bound", {"actions_at_one_bound": 1.0, "training_return": flat}, {}),
    ("standstill", {"mean_kl": 0.0, "training_return": flat}, {}),
    ("dead-units", {"dead_units": 0.8, "training_return": flat}, {}),
    ("observation-scale", {"observation_scale": 300.0}, {}),
    ("observation-scale", {"observations_clipped": 0.6}, {}),
    ("observation-scale", {"observation_scale": 0.0}, {}),
    ("reward-scale", {"rewards_clipped": 0.9}, {}),
    ("value-biased", {"td_error_mean": -0.05}, {}),
    ("value-explains-little", {"held_out_explained_variance_monte_carlo": -0.1}, {}),
    ("trust-region", {"mean_kl": 0.02}, {"max_kl": 0.01}),
    ("trust-region", {"held_out_mean_kl": 0.5}, {}),
    ("no-gradient", {"gradient_signal": lambda number, row: (-1.0) ** number, "training_return": flat}, {}),
    ("surrogate", {"held_out_surrogate_gain": -0.02}, {}),
    ("surrogate", {"training_return": lambda number, row: 500.0 - 3 * number}, {}),
    ("entropy", {"entropy": lambda number, row: 1.4 * 0.97**number, "training_return": flat}, {}),
    ("entropy", {"entropy": lambda number, row: 1.4 * 0.8**number}, {}),  # too fast to be learning
    ("entropy", {"entropy": 1.4, "training_return": flat}, {}),
    ("entropy", {"mean_log_std": lambda number, row: -0.1 * number, "training_return": flat}, {}),
    ("entropy", {"mean_log_std": lambda number, row: 0.02 * number, "training_return": flat}, {}),
    ("truncation", {"terminated_at_clock": 4}, {}),
    ("truncation", {"truncated_early": 4}, {}),
    ("evaluation", {"evaluation_return": lambda number, row: -5.0 * number if number % 15 == 0 else math.nan}, {}),
]


@pytest.mark.parametrize(("name", "changes", "configuration"), FAULTS)
def test_a_rule_sees_what_it_is_for(name: str, changes: dict[str, Any], configuration: dict[str, Any]) -> None:
    assert name in warned_of(changes, configuration)


def test_every_rule_is_tried_above_and_every_rule_is_documented() -> None:
    assert {name for name, _, _ in FAULTS} == {rule.name for rule in RULES} - {rule.name for rule in OFFLINE_RULES}
    for rule in RULES:
        assert all(rule.explained.values()) and rule.meaning.endswith(".") and rule.remedy.endswith(".")


def test_an_iteration_without_episodes_is_no_fault() -> None:
    assert warned_of({"training_return": lambda number, row: math.nan if number % 3 else row["training_return"]}) == []


def test_a_few_large_steps_among_small_ones_are_no_fault() -> None:
    """The rule is of the mean over twenty iterations, which three of them do not raise above its limit."""
    assert warned_of({"held_out_mean_kl": lambda number, row: 0.5 if number % 20 < 3 else 0.009}) == []


def test_a_condition_must_last_and_is_told_once() -> None:
    rule = next(rule for rule in RULES if rule.name == "reward-scale")
    watch = Watch({}, [rule])
    clipped = [0.9] * 4 + [0.0] + [0.9] * 10
    given = [
        watch.see({"iteration": n, "env_steps": n, "rewards_clipped": share}) for n, share in enumerate(clipped, 1)
    ]
    assert [len(new) for new in given] == [0] * 9 + [1] + [0] * 5
    assert given[9][0].iteration == 10
    assert "90% of rewards" in str(given[9][0])


def test_a_column_that_comes_late_is_nan_before() -> None:
    rows = Rows({})
    for number in range(200):
        rows.append({"early": number, "note": "text", "flag": True, **({"late": 1.0} if number == 150 else {})})
    assert len(rows) == 200
    assert rows.all("early").tolist() == list(range(200))
    assert rows.all("late").tolist() == [1.0]
    assert math.isnan(rows.newest("late")) and rows.newest("early") == 199
    assert "note" not in rows and "flag" not in rows


def test_the_first_number_that_broke_is_named() -> None:
    watch = Watch({}, [RULES[0]])
    good = {"reward_mean": 1.0, "td_error_spread": 0.1, "parameter_norm": 3.0}
    watch.see({"iteration": 1, "env_steps": 1, **good})
    (warned,) = watch.see(
        {"iteration": 2, "env_steps": 2, **good, "parameter_norm": math.nan, "td_error_spread": math.inf}
    )
    assert warned.sentence.startswith("td_error_spread is not finite")


def spec_with(low: float, high: float) -> EnvSpec:
    return EnvSpec("Anything-v0", Box.unbounded(2), Box((low,), (high,)), 100)


def test_before_training_scales_are_looked_at() -> None:
    seen = np.array([[0.1, 400.0]])
    fine = {"log_std": 0.0, "normalise_observations": True}
    assert preflight(spec_with(-1.0, 1.0), fine, seen) == []
    assert [warned.name for warned in preflight(spec_with(-100.0, 100.0), fine, seen)] == ["action-scale"]
    assert [warned.name for warned in preflight(spec_with(-0.01, 0.01), fine, seen)] == ["action-scale"]
    raw = {**fine, "normalise_observations": False}
    (warned,) = preflight(spec_with(-1.0, 1.0), raw, seen)
    assert (warned.name, warned.iteration) == ("observation-scale", 0)
    assert "400" in warned.sentence


# --- in a run ---

CLIPPED: dict[str, Any] = {
    "num_envs": 4, "rollout_steps": 16, "minibatch_size": 16, "num_epochs": 1, "hidden": (8,), "reward_clip": 1e-3,
    "anneal_env_steps": 2000, "normalise_observations": False,
}  # fmt: skip


class Told(train.Observer):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def noted(self, sentence: str) -> None:
        self.sentences.append(sentence)


def trained(root: Any, id: str, env_steps: int, **schedule: Any) -> tuple[RunFolder, Told]:
    told = Told()
    folder, _ = train.start(
        task="Pendulum-v1", algorithm="ppo", settings=CLIPPED, env_steps=env_steps, root=root, id=id, threads=1,
        schedule=train.Schedule(final_episodes=2, **schedule), observer=told,
    )  # fmt: skip
    return folder, told


def test_a_run_tells_and_keeps_its_warnings_and_a_resumed_one_the_same(tmp_path: Any, capsys: Any) -> None:
    whole, told = trained(tmp_path, "whole", 2000)
    assert [warned.name for warned in read_warnings(whole)] == ["reward-scale"]
    assert [sentence for sentence in told.sentences if "reward-scale" in sentence] == [str(read_warnings(whole)[0])]
    for budget in (128, 640):  # stopped before it came, and after
        folder, _ = trained(tmp_path, f"stopped{budget}", budget)
        again = Told()
        train.resume(folder.path, env_steps=2000, threads=1, observer=again)
        assert read_warnings(folder) == read_warnings(whole)
        assert any("reward-scale" in sentence for sentence in again.sentences) == (budget == 128)
    (whole.path / "warnings.json").unlink()
    assert main(["warnings", str(whole.path)]) == 0
    assert "Warning at iteration 5, reward-scale" in capsys.readouterr().out


def test_a_run_stops_at_a_warning_where_asked(tmp_path: Any) -> None:
    folder, told = trained(tmp_path, "one", 2000, stop_on_warning=True)
    assert folder.status().iteration == 5  # type: ignore[union-attr]
    assert "stop-on-warning" in told.sentences[-1]
    train.resume(folder.path, threads=1)
    assert folder.status().env_steps >= 2000  # type: ignore[union-attr]


def test_a_damaged_file_of_warnings_stops_nobody(tmp_path: Any) -> None:
    folder, _ = trained(tmp_path, "one", 640)
    for content in (b"\xff{", json.dumps([{"name": "x"}]).encode(), b"3"):
        (folder.path / "warnings.json").write_bytes(content)
        assert read_warnings(folder) == []


def test_the_command_explains_and_refuses(capsys: Any) -> None:
    assert main(["warnings"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(RULES) + len(OTHER_RULES)
    assert main(["warnings", "action-scale"]) == 0
    assert "log_std" in capsys.readouterr().out
    assert main(["warnings", "no-gradient"]) == 0
    assert "misleads" in capsys.readouterr().out
    assert main(["warnings", "no-gradien"]) == 2
    assert "no-gradient" in capsys.readouterr().err
    assert main(["warnings", "runs/nothing"]) == 2


def test_the_page_of_warnings_has_every_rule_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "warnings.md").read_text()
    for rule in (*RULES, *OTHER_RULES):
        assert f"### {rule.name}\n\n{rule.meaning}\n" in page
        for head, text in rule.explained.items():
            assert f"- **{head.capitalize()}:** {text}\n" in page, f"run bench/tables.py: {rule.name}, {head}"


# --- limits, from just below and from just above ---


def swings(middle: float, swing: float) -> Any:
    """A column that goes to and fro, so that its mean and deviation are known in any even window."""
    return lambda number, row: middle + swing * (-1) ** number


def agreement(middle: float, swing: float) -> Any:
    """Signal of gradients whose share of signal and noise, with a noise of 1, is as given."""
    share = swings(middle, swing)
    return lambda number, row: share(number, row) / (1 - abs(share(number, row)))


def later(first: float, then: float, begin: int = 4) -> Any:
    return lambda number, row: first if number < begin else then


def judged(value: Any) -> Any:
    return lambda number, row: value(number) if number % 15 == 0 else math.nan


def returns(number: int, row: dict[str, Any]) -> float:
    return 100.0 * (number % 2)


NEVER_ENDS = {"reward_max": -1.0, "reward_min": -1.0, "truncated_episodes": 5}
ENDS = {**NEVER_ENDS, "truncated_episodes": 4}
SOFT = {**OWN_REWARDS, "temperature": 1.0, "highest_entropy": 2.0}


def falls(factor: float) -> Any:
    return lambda number, row: 500.0 * factor**number


def rises(factor: float) -> Any:
    """A temperature that rises by this factor in any twenty iterations."""
    return lambda number, row: 1e-4 * factor ** (number / 20)


OFF_POLICY_LIMITS: list[tuple[str, str, Any, Any, dict[str, Any], dict[str, Any]]] = [
    # bound 1 / (1 - .99) = 100, and a tenth of that
    ("value-above-rewards", "value", 109.9, 110.1, OWN_REWARDS, {}),
    ("value-above-rewards", "value", 1099.0, 1101.0, OWN_REWARDS, {"reward_scale": 10.0}),
    ("value-above-rewards", "value", 54.9, 55.1, {**OWN_REWARDS, "reward_factor": 0.5}, {"reward_scale": 10.0}),
    ("value-above-rewards", "value_max", 139.9, 140.1, {**OWN_REWARDS, "value": 0.0}, {}),
    # the largest reward ever, not the newest
    ("value-above-rewards", "value", 219.9, 220.1, {**OWN_REWARDS, "reward_max": lambda n, row: 1.0 + (n == 3)}, {}),
    # all rewards are -1: the bound is -1 where episodes terminate, and -100 where they never do
    ("value-above-rewards", "value", 8.9, 9.1, ENDS, {}),
    ("value-above-rewards", "value", -90.1, -89.9, NEVER_ENDS, {}),
    ("value-above-rewards", "value", lambda n, row: -0.55 * n, lambda n, row: -0.01 * n, NEVER_ENDS, {}),
    # 1 + .99 (1 + 2) / .01 = 298, with a temperature of 1 and 2 nats at most
    ("value-above-rewards", "value", 307.9, 308.1, SOFT, {}),
    ("value-above-returns", "recent_value", 25.9, 26.1, RECENT, {}),
    # entropy of later steps: .1 * 1 nat * .99 / .01 = 9.9
    ("value-above-returns", "recent_value", 35.8, 36.0, {**RECENT, "temperature": 0.1, "entropy": 1.0}, {}),
    ("value-above-returns", "recent_value", falls(0.99), falls(0.997), RECENT, {}),
    ("temperature", "temperature", rises(2.99), rises(3.01), HOT, {}),
    ("temperature", "entropy", lambda n, row: 0.2 + 0.004 * n, 0.2, HOT, {}),
    ("support-ends", "support_end_mass", 0.0499, 0.0501, {}, {}),
    # of the last hundred iterations 100 * updates * 100 samples * 5 / 1000 terminations: 20
    ("dead-replay", "updates", lambda n, row: 0.398 * n, lambda n, row: 0.402 * n, REPLAY, {"batch_size": 100}),
    ("dead-replay", "sampled_terminals", 1e-9, 0.0, REPLAY, {"batch_size": 100}),
    ("dead-replay", "truncated_episodes", 5, 4, REPLAY, {"batch_size": 100}),
]  # fmt: skip


WORST = {"training_return": returns, "training_return_min": 50.0, "evaluation_return_std": 1.0}
TRUST = {"max_kl": 0.01}
LIMITS: list[tuple[str, str, Any, Any, dict[str, Any], dict[str, Any]]] = [
    ("not-finite", "reward_mean", 1e308, math.inf, {}, {}),
    ("exploding", "gradient_norm", later(0.5, 50.0, 60), later(0.5, 50.1, 60), {}, {}),
    ("exploding", "parameter_norm", later(12.0, 1200.0, 60), later(12.0, 1201.0, 60), {}, {}),
    ("stale-log-probabilities", "log_prob_gap", 0.01, 0.0101, {}, {}),
    ("repeated-noise", "noise_across_slots", 2.0, 2.01, {}, {}),
    ("repeated-noise", "noise_over_time", 0.299, 0.301, {}, {}),
    ("repeated-noise", "noise_over_time", -0.299, -0.301, {}, {}),
    ("repeated-noise", "noise_level", swings(0.3, 0.051), swings(0.3, 0.049), {}, {}),
    ("saturated-actions", "saturated_actions", 0.899, 0.901, {"training_return": flat}, {}),
    ("actions-at-one-bound", "actions_at_one_bound", 0.9899, 0.99, {"training_return": flat}, {}),
    ("standstill", "mean_kl", lambda n, row: 1e-30 * (n % 10 == 0), 0.0, {"training_return": flat}, {}),
    ("standstill", "step_norm", lambda n, row: 1e-30 * (n % 10 == 0), 0.0, {"training_return": flat}, {}),
    ("standstill", "gradient_norm", lambda n, row: 1e-30 * (n % 10 == 0), 0.0, {"training_return": flat}, {}),
    ("standstill", "training_return_max", lambda n, row: 5.0 + 1e-9 * (n % 10 == 0), 5.0,
     {"training_return_min": 5.0, "training_return": 5.0, "mean_kl": None}, {}),
    ("dead-units", "dead_units", 0.5, 0.501, {"training_return": flat}, {}),
    ("observation-scale", "observation_scale", 20.0, 20.1, {}, {}),
    ("observation-scale", "observation_scale", 1e-30, 0.0, {}, {}),
    ("observation-scale", "observations_clipped", 0.2, 0.201, {}, {}),
    ("reward-scale", "rewards_clipped", 0.5, 0.501, {}, {}),
    ("value-biased", "td_error_mean", 0.00646, 0.00647, {}, {}),  # .3 of a value of 2.154, times 1 - discount
    ("value-biased", "td_error_mean", swings(0.02, 0.0175), swings(0.02, 0.0174), {}, {}),  # 5 standard errors
    ("value-explains-little", "held_out_explained_variance_monte_carlo", 0.101, 0.099, {}, {}),
    ("trust-region", "mean_kl", 0.010009, 0.010011, {}, TRUST),
    ("trust-region", "held_out_mean_kl", 0.0499, 0.0501, {}, TRUST),
    ("trust-region", "held_out_mean_kl", 0.0999, 0.1001, {}, {}),
    ("no-gradient", "gradient_signal", agreement(0.056, 0.3), agreement(0.04, 0.3), {"training_return": flat}, {}),
    ("surrogate", "surrogate_gain", swings(-0.0068, 0.01), swings(-0.0069, 0.01), {}, {}),
    ("surrogate", "held_out_surrogate_gain", swings(-0.0068, 0.01), swings(-0.0069, 0.01), {}, {}),
    ("surrogate", "training_return", lambda n, row: 100 + 10 * (-1) ** n - 18.8 * (n > 20),
     lambda n, row: 100 + 10 * (-1) ** n - 18.9 * (n > 20), {}, {}),
    ("entropy", "entropy", later(1.0, 0.0501), later(1.0, 0.0499), {}, {}),
    ("entropy", "entropy", later(1.0, 0.9799), later(1.0, 0.9801), {"training_return": flat}, {}),
    ("entropy", "mean_log_std", later(0.0, -2.99), later(0.0, -3.01), {}, {}),
    ("entropy", "mean_log_std", later(0.0, 0.99), later(0.0, 1.01), {"training_return": flat}, {}),
    ("truncation", "terminated_at_clock", 1, lambda n, row: 1 + (n % 20 == 0), {}, {}),
    ("truncation", "truncated_early", 1, lambda n, row: 1 + (n % 20 == 0), {}, {}),
    ("saturated-actions", "saturated_actions", 0.499, 0.501, {"training_return": flat, "replay_rows": 9.0}, {}),
    *OFF_POLICY_LIMITS,
    ("evaluation", "evaluation_return", judged(lambda n: 30.1), judged(lambda n: 29.9), WORST, {}),
    ("evaluation", "evaluation_return", judged(lambda n: 100.0 - 19.9 * (n > 75)),
     judged(lambda n: 100.0 - 20.1 * (n > 75)), {"evaluation_return_std": 20.0}, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "column", "below", "above", "others", "settings"),
    [pytest.param(*case, id=f"{case[0]}-{case[1]}-{number}") for number, case in enumerate(LIMITS)],
)
def test_a_rule_is_silent_on_this_side_of_its_limit_and_warns_on_the_other(
    name: str, column: str, below: Any, above: Any, others: dict[str, Any], settings: dict[str, Any]
) -> None:
    assert name not in warned_of({**others, column: below}, settings)
    assert name in warned_of({**others, column: above}, settings)


def test_every_rule_has_its_limits_tried() -> None:
    assert {case[0] for case in LIMITS} == {rule.name for rule in RULES} - {rule.name for rule in OFFLINE_RULES}


@pytest.mark.parametrize("name", ["actions-at-one-bound", "standstill"])
def test_a_run_that_has_gained_is_not_told_that_it_is_stuck(name: str) -> None:
    solved = {
        "actions_at_one_bound": lambda n, row: float(n > 100),
        "mean_kl": lambda n, row: 0.01 * (n <= 100),
    }
    assert name not in warned_of(solved)
    assert name in warned_of({"actions_at_one_bound": 1.0, "mean_kl": 0.0, "training_return": flat})


def test_actions_at_one_bound_are_told_of_within_ten_iterations() -> None:
    watch = Watch({})
    row = {"actions_at_one_bound": 1.0, "training_return": -150.0, "training_return_max": -150.0}
    told = [watch.see({"iteration": n, "env_steps": n, **row}) for n in range(1, 11)]
    assert [warned.name for new in told for warned in new] == ["actions-at-one-bound"]


@pytest.mark.parametrize(("low", "high"), [(-20.0, 20.0), (-0.05, 0.05)])
def test_the_scale_of_actions_is_looked_at_just_beyond_its_limits(low: float, high: float) -> None:
    seen = np.array([[0.1, 20.0]])
    settings = {"log_std": 0.0, "normalise_observations": False}
    assert preflight(spec_with(low, high), settings, seen) == []
    wider, narrower = 1.001 * high, 0.999 * high
    found = [preflight(spec_with(-size, size), settings, seen) for size in (wider, narrower)]
    assert sorted(len(warned) for warned in found) == [0, 1]
    assert [one.name for one in preflight(spec_with(-1.0, 1.0), settings, seen + 0.1)] == ["observation-scale"]


def test_rescaled_actions_have_no_odd_scale() -> None:
    assert preflight(spec_with(5.0, 35.0).rescaled(), {"log_std": -2.9}, np.zeros((1, 2))) == []
    assert preflight(spec_with(5.0, 35.0), {"log_std": -2.9}, np.zeros((1, 2))) != []


# --- off-policy ---


def test_one_episode_an_iteration_is_no_standstill() -> None:
    """With a single slot the best and the worst episode of an iteration are one."""
    same = {"training_return": flat, "training_return_max": -150.0, "training_return_min": -150.0, "mean_kl": None}
    assert "standstill" in warned_of(same)
    assert "standstill" not in warned_of({**same, "replay_rows": lambda number, row: 256.0 * number})


def test_an_iteration_without_updates_is_no_fault() -> None:
    """Metrics of updates are missing where none was due, and a lost number is not one that broke."""
    sparse = {"updates": lambda number, row: number // 2, "value": lambda number, row: 1.0 if number % 2 == 0 else None}
    assert warned_of(sparse) == []
    broken = {**sparse, "value": lambda number, row: (math.nan if number > 50 else 1.0) if number % 2 == 0 else None}
    assert warned_of(broken) == ["not-finite"]


def test_terminations_that_the_replay_has_forgotten_are_not_expected() -> None:
    """Two iterations are kept, and after the third no episode terminated."""
    solved = {
        **REPLAY,
        "replay_rows": 2000.0,
        "truncated_episodes": lambda number, row: 5 if number > 3 else 0,
        "updates": lambda number, row: 250 * max(number - 5, 0),
    }
    assert "dead-replay" not in warned_of(solved, {"batch_size": 100})
    assert "dead-replay" in warned_of({**solved, "truncated_episodes": 0}, {"batch_size": 100})


@given(
    reward=st.floats(-5, 5),
    discount=st.floats(0.0, 0.97),
    entropy=st.floats(0, 3),
    length=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_no_episode_is_worth_more_than_the_highest_value(
    reward: float, discount: float, entropy: float, length: int, seed: int
) -> None:
    """Rewards below the largest, bonuses below the highest, an end anywhere: a plain sum never passes the bound."""
    rng = np.random.default_rng(seed)
    for below in (0.0, 2.0):
        for steps, terminates in ((length, True), (1500, False)):
            total = 0.0
            for step in range(steps):
                bonus = entropy * (1 - below * rng.uniform() / 2) if step else 0.0
                total += discount**step * (reward - below * rng.uniform() + bonus)
            bound = highest_value(reward, discount, entropy, terminates=terminates)
            assert total <= bound + 1e-9 * (1 + abs(bound))


@pytest.mark.parametrize(("reward", "terminates", "steps"), [(2.0, True, 3000), (-2.0, True, 1), (-2.0, False, 3000)])
def test_the_highest_value_is_reached(reward: float, terminates: bool, steps: int) -> None:
    best = sum(0.99**step * reward for step in range(steps))
    assert highest_value(reward, 0.99, terminates=terminates) == pytest.approx(best, rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_rules_about_updates_of_a_policy_gradient_are_silent_of_others() -> None:
    """The return falls, and there is no surrogate whose gain could be compared with it."""
    lost = {"training_return": lambda number, row: 500.0 - 3 * number}
    lacking = ("surrogate", "surrogate_gain", "held_out_surrogate_gain", "mean_kl", "held_out_mean_kl", "td_error_mean")
    assert "surrogate" not in warned_of({**lost, **dict.fromkeys(lacking)})
