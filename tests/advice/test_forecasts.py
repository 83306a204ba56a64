"""Labels, forecasts and their scores."""

import json
import math

import numpy as np
import pytest

from workhorse.advice.advise import Advice, Way, advice_on, read_forecast, save_forecast
from workhorse.advice.forecast import CLIP, FEATURES, INPUTS, features, fit, read_model
from workhorse.advice.labels import label_of, read_labels
from workhorse.advice.probe import TaskCard
from workhorse.advice.scoring import EndedRun, brier_score, reliability, score_forecasts
from workhorse.core.errors import UsageError


def test_four_of_five_seeds_within_a_fifth_of_the_best_work():
    base = {"zero": [0.0], "random": [-5.0], "cem": [10.0]}
    assert label_of("a/b", "a", {**base, "ppo": [8.0] * 4 + [0.0]}).works["gradient"]
    assert not label_of("a/b", "a", {**base, "ppo": [8.0] * 3 + [0.0] * 2}).works["gradient"]
    assert not label_of("a/b", "a", {**base, "ppo": [7.99] * 5}).works["gradient"]
    found = label_of("a/b", "a", {**base, "openai-es": [9.0] * 5, "ppo": [1.0] * 5})
    assert found.floor == 0.0 and found.best == 10.0 and found.works["simple"] and "plan" not in found.works
    assert found.answer(("es", "gradient")) == "es" and found.answer(("gradient",)) == "none"


def test_nothing_works_where_nothing_leaves_the_floor():
    found = label_of("a/b", "a", {"zero": [-200.0], "random": [-200.0], "ppo": [-199.0] * 5, "cem": [-200.0]})
    assert not any(found.works.values()) and found.answer(("simple", "gradient")) == "none"


def test_features_are_shares_of_what_was_seen():
    found = features(
        {"floor": -100.0, "random_return": -120.0, "es_return": -50.0, "ppo_return": 0.0, "guess_best": -200}
    )
    assert found["gradient"] == 1.0 and found["es"] == 0.5 and found["simple"] == -0.5 and found["plan"] == 0.5
    assert set(found) == set(FEATURES)
    flat = features({"floor": -200.0, "random_return": -200.0, "es_return": -200.0, "ninth_horizon": 1000.0})
    assert flat["es"] == 0.0 and flat["reach"] == 1.0
    assert all(math.isfinite(value) for value in features({"floor": 1.0, "ninth_horizon": math.nan}).values())


def rows(count, seed=0):
    table = np.random.default_rng(seed).standard_normal((count, len(FEATURES)))
    return [dict(zip(FEATURES, row, strict=True)) for row in table]


def test_a_fit_is_where_the_penalised_loss_is_flat():
    found, generator = rows(80), np.random.default_rng(1)
    came = [bool(row["es"] + 0.5 * generator.standard_normal() > 0) for row in found]
    model = fit(found, {"es": came}, penalty=2.0)
    table = (np.array([[row[name] for name in FEATURES] for row in found]) - model.mean) / model.scale
    table = table[:, [FEATURES.index(name) for name in INPUTS["es"]]]
    weights = np.array(model.weights["es"])
    chance = 1 / (1 + np.exp(-(table @ weights[:-1] + weights[-1])))
    slope = table.T @ (chance - came) + 2.0 * weights[:-1]
    np.testing.assert_allclose(slope, 0, atol=1e-3)
    assert (chance - came).sum() == pytest.approx(0, abs=1e-3)  # the constant is not penalised
    assert model.movers(found[0], "es", 1)[0][0] == "es" or abs(found[0]["es"]) < 0.3
    far = model.probabilities({**found[0], "es": 100.0})
    assert far["es"] == 1 - CLIP


def advice_of(chances, task="CartPole-v1", **numbers):
    ways = tuple(Way(group, chance, 1000, 1.0, 0.0, "", ()) for group, chance in chances.items())
    known = {"floor": 0.0, "random_return": 0.0, "ppo_return": 50.0, **numbers}
    return Advice(task, {"g": 3}, "2026-01-01T00:00:00Z", known, {}, 1.0, True, ways, "none")


def test_forecasts_are_scored_by_the_runs_of_their_task_alone():
    advice = advice_of({"es": 0.9, "gradient": 0.2})
    trials = [EndedRun(f"r{place}", "CartPole-v1", {"g": 3}, "ppo", 85.0) for place in range(4)]
    trials += [
        EndedRun("low", "CartPole-v1", {"g": 3}, "ppo", 0.0),
        EndedRun("best", "CartPole-v1", {"g": 3}, "openai-es", 100.0),
        EndedRun("other", "CartPole-v1", {"g": 4}, "openai-es", 1e6),
        EndedRun("elsewhere", "Acrobot-v1", {"g": 3}, "ppo", 1e6),
    ]
    es, gradient = score_forecasts([advice], trials)
    assert (es.came, es.runs, es.line) == (True, ("best",), 80.0) and not es.is_wrong
    assert gradient.came and len(gradient.runs) == 5 and gradient.is_wrong
    gradient = score_forecasts([advice], [*trials, EndedRun("low2", "CartPole-v1", {"g": 3}, "ppo", 79.0)])[1]
    assert not gradient.came  # 4 of 6
    assert score_forecasts([advice], []) == []


def test_scores_in_closed_form():
    assert brier_score([1.0, 0.0, 0.5], [True, True, False]) == pytest.approx((0 + 1 + 0.25) / 3)
    assert reliability([0.0, 1.0, 1.0], [False, True, False], bins=2) == [(0.0, 0.0, 1), (1.0, 0.5, 2)]


def card_of(**numbers):
    known = {"observation_size": 4.0, "action_size": 2.0, "episode_steps": 500.0, "floor": 20.0, "random_return": 20.0}
    return TaskCard("CartPole-v1", {}, {**known, **numbers}, {}, {"all": 1.0, "policy gradients": 2.0})


def test_advice_is_the_cheapest_way_that_is_likely():
    found = advice_on(card_of(guess_best=500.0, climb_best=500.0, lqr_return=500.0, es_return=500.0, ppo_return=500.0))
    assert found.answer == "simple" and found.chosen == found.ways[0]
    assert [way.group for way in found.ways] == [group for group in ("simple", "plan", "es", "gradient")
                                                 if group in {way.group for way in found.ways}]  # fmt: skip
    without = advice_on(card_of(guess_best=500.0), simulator_available=False)
    assert "plan" not in {way.group for way in without.ways}
    gradient = next(way for way in found.ways if way.group == "gradient")
    assert gradient.env_steps == 200_000 and gradient.core_s == pytest.approx(8.0)  # of the recipe; 2 s for 50,000
    assert gradient.command == "workhorse train CartPole-v1 --algorithm ppo --env-steps 200000"
    dear = advice_on(card_of(ppo_return=500.0), step_price=0.01)
    assert next(way for way in dear.ways if way.group == "gradient").price == pytest.approx(2000.0)
    with pytest.raises(UsageError, match=r"price of a step must be at least 0: got -1"):
        advice_on(card_of(), step_price=-1)


def test_forecasts_are_kept_and_damaged_ones_named(tmp_path):
    card = card_of(ppo_return=500.0, first_reward_steps=math.inf)
    first = save_forecast(advice_on(card), tmp_path)
    second = save_forecast(advice_on(card), tmp_path)
    assert first != second
    found = read_forecast(first)
    assert found.numbers["first_reward_steps"] == math.inf and found.ways == read_forecast(second).ways
    json.loads(first.read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no strict JSON"))
    first.write_text(first.read_text()[:-40])
    with pytest.raises(UsageError, match=r"is no forecast .*move it away"):
        read_forecast(first)


def test_what_is_shipped_fits_together():
    labels, model = read_labels(), read_model()
    assert len(labels) >= 60 and len({one.family for one in labels}) >= 5
    assert model is not None and all(len(row) == len(INPUTS[group]) + 1 for group, row in model.weights.items())
