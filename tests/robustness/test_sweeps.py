"""Sweeps over changed tasks against plain loops of one variation at a time."""

import json
import math
from typing import Any

import jax
import numpy as np
import pytest

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.errors import UsageError
from workhorse.core.layers import GRU, Dense, Flatten, Mode, Normalise, head_for
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Box, Discrete
from workhorse.environments.mujoco.perturbations import Physics, set_physics
from workhorse.environments.registry import make
from workhorse.robustness import variations
from workhorse.robustness.ranges import DEFAULT_RANGES
from workhorse.robustness.results import from_record, to_record
from workhorse.robustness.sweeps import sweep
from workhorse.runs.policy import Policy

EPISODES, STEPS, SEED = 3, 25, 7
OPTIONS = {"max_episode_steps": STEPS, "terminate_when_unhealthy": False}
NOISE = np.linspace(0.1, 2.0, 11)
MIXED = {
    "body mass": [0.5, 2.0],
    "friction": [0.5],
    "gravity": [0.7, 1.3],
    "actuator strength": [0.5],
    "observation noise": [0.3],
    "action delay": [2],
    "action repeat": [3],
    "time limit": [0.4, 2.0],
    "initial state": [0.0, 5.0],
}


@pytest.fixture(autouse=True)
def away(tmp_path, monkeypatch):
    """MuJoCo writes its warnings into MUJOCO_LOG.TXT in the working folder."""
    monkeypatch.chdir(tmp_path)


def linear(weight, action, task, *before):
    layers = (*before, Dense(weight), head_for(action))
    return Policy(layers, observation=Box.unbounded(np.shape(weight)[1]), action=action, task=task)


def hopper(normalised=True, factor=1.0):
    rng = np.random.default_rng(0)
    before = (Normalise(np.zeros(11), NOISE),) if normalised else ()
    return linear(factor * rng.normal(size=(3, 11)), Box((-1.0,) * 3, (1.0,) * 3), "Hopper-v5", *before)


def hopper_with_memory():
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=shape) for shape in [(12, 11), (12, 4), (12,), (4,)]]
    layers = (Normalise(np.zeros(11), NOISE, 2.0), GRU(*arrays), Dense(rng.normal(size=(3, 4))), Mode())
    return Policy(layers, observation=Box.unbounded(11), action=Box((-1.0,) * 3, (1.0,) * 3), task="Hopper-v5")


def cart_pole():
    return linear(np.array([[-1.0, 0, -3, -1], [1, 0, 3, 1]]), Discrete(2), "CartPole-v1")


def swept(artefacts, policy=None, **changed):
    settings = {"episodes": EPISODES, "seed": SEED, "threads": 1, **changed}
    return sweep(policy or hopper(), "Hopper-v5", OPTIONS, artefacts=artefacts, **settings)


def walk(policy, obs, step, steps, delay=0, repeat=1, noise=None):
    """Returns of a batch of episodes, none of which ends early, and everything seen."""
    chosen, seen, total, state = [], [], np.zeros(len(obs)), None
    generators = [host_generator(key) for key in host_keys(SEED, "perturb", 0, np.arange(len(obs)))]
    for time in range(steps):
        seen.append(obs)
        if noise is not None:
            obs = obs + noise * np.stack([generator.standard_normal(obs.shape[1]) for generator in generators])
        if time % repeat == 0:
            action, state = policy.predict(obs, state)
        chosen.append(action)
        action = chosen[time - delay] if time >= delay else np.zeros_like(chosen[0])
        obs, reward = step(action)
        total = total + reward
    return total, np.concatenate(seen)


def walk_hopper(policy, physics=None, initial_state=1.0, steps=STEPS, **changed):
    env: Any = make(
        "Hopper-v5", EPISODES, 1, **{**OPTIONS, "max_episode_steps": steps}, reset_noise_scale=5e-3 * initial_state
    )
    if physics is not None:
        set_physics(env, [physics] * EPISODES)
    obs = env.reset(host_keys(SEED, "evaluate", 0, np.arange(EPISODES)))

    def step(action):
        found = env.step(action)
        return found.next_obs, found.reward

    try:
        return walk(policy, obs, step, steps, **changed)
    finally:
        env.close()


@pytest.fixture(scope="module")
def mixed():
    return swept(MIXED)


def row(found, name, value):
    (artefact,) = [one for one in found.artefacts if one.name == name]
    return artefact.episode_returns[artefact.values.tolist().index(value)]


@pytest.mark.parametrize(
    ("name", "value", "changes"),
    [
        ("body mass", 2.0, {"physics": Physics(body_mass=2.0)}),
        ("friction", 0.5, {"physics": Physics(friction=0.5)}),
        ("gravity", 0.7, {"physics": Physics(gravity=0.7)}),
        ("actuator strength", 0.5, {"physics": Physics(actuator_strength=0.5)}),
        ("observation noise", 0.3, {"noise": 0.3 * NOISE.astype(np.float32).astype(np.float64)}),
        ("action delay", 2.0, {"delay": 2}),
        ("action repeat", 3.0, {"repeat": 3}),
        ("time limit", 0.4, {"steps": 10}),
        ("time limit", 2.0, {"steps": 50}),
        ("initial state", 5.0, {"initial_state": 5.0}),
    ],
)
def test_a_value_is_that_task_on_its_own(name, value, changes, mixed):
    expected, _ = walk_hopper(hopper(), **changes)
    assert np.array_equal(row(mixed, name, value), expected)
    assert not np.array_equal(expected, walk_hopper(hopper())[0]), "the change makes no difference here"


def test_a_policy_with_memory_keeps_it_in_every_variation():
    policy = hopper_with_memory()
    found = swept({"action repeat": [3]}, policy)
    for repeat in (1, 3):
        assert np.array_equal(row(found, "action repeat", float(repeat)), walk_hopper(policy, repeat=repeat)[0])
    obs = np.array([[0.1] * 11, [1e300] * 11, [0.2] * 11])
    actions, refused, state = variations._predict(policy, obs, (np.full((3, 4), 0.5),))
    assert refused.tolist() == [False, True, False] and state[0].shape == (3, 4)
    expected, _ = policy.predict(obs[[0, 2]], (np.full((2, 4), 0.5),))
    np.testing.assert_allclose(actions[[0, 2]], expected, atol=1e-6)


def test_the_nominal_value_is_the_task_itself(mixed):
    expected, _ = walk_hopper(hopper())
    assert mixed.nominal_return == expected.mean()
    assert len(mixed.artefacts) == 9
    for artefact in mixed.artefacts:
        assert np.array_equal(row(mixed, artefact.name, artefact.nominal), expected), artefact.name
        assert np.array_equal(artefact.returns, artefact.episode_returns.mean(axis=1))
        assert artefact.broken.tolist() == [0] * len(artefact.values)


def test_both_ends_are_tried_and_the_nominal_value_is_added(mixed):
    assert [artefact.name for artefact in mixed.artefacts] == list(MIXED)
    for artefact in mixed.artefacts:
        assert artefact.values.tolist() == sorted({*MIXED[artefact.name], artefact.nominal})
    assert (mixed.skipped, mixed.episodes) == ({}, EPISODES)


def test_the_default_ranges_hold_their_nominal_value():
    found = swept(None, episodes=1)
    assert {artefact.name: tuple(artefact.values) for artefact in found.artefacts} == dict(DEFAULT_RANGES)
    assert [artefact.unit for artefact in found.artefacts] == ["x"] * 4 + ["sd", "steps", "steps", "x", "x"]


def test_corners_are_all_ends_at_once(mixed):
    assert len(mixed.corners) == 16 and len(set(mixed.corners.values())) == 16
    found = mixed.corners["body mass 2 x, friction 0.5 x, gravity 1.3 x, actuator strength 1 x"]
    assert found == walk_hopper(hopper(), Physics(2.0, 0.5, 1.3, 1.0))[0].mean()
    assert swept({"gravity": [0.5, 2]}).corners == {}, "one artefact alone makes no corner"
    assert len(swept({"gravity": [0.5, 2], "friction": [1.0], "body mass": [2.0]}).corners) == 4


def records(*found):
    return [json.dumps(to_record(one), sort_keys=True) for one in found]


def test_threads_and_blocks_change_nothing(mixed, monkeypatch):
    threaded = swept(MIXED, threads=3)
    monkeypatch.setattr(variations, "MOST_SLOTS", 4 * EPISODES + 1)
    assert len(set(records(mixed, threaded, swept(MIXED)))) == 1


def test_what_else_is_swept_changes_nothing(mixed):
    assert np.array_equal(swept({"gravity": [1.3]}).artefacts[0].episode_returns[1], row(mixed, "gravity", 1.3))


def test_more_episodes_than_a_block_holds(monkeypatch):
    expected = swept({"action delay": [1]}, episodes=5).artefacts[0].episode_returns
    monkeypatch.setattr(variations, "MOST_SLOTS", 2)
    assert np.allclose(swept({"action delay": [1]}, episodes=5).artefacts[0].episode_returns, expected, atol=1e-3)


def test_another_seed_starts_elsewhere(mixed):
    assert swept({"gravity": [1]}, seed=SEED + 1).nominal_return != mixed.nominal_return


def test_without_a_normaliser_noise_is_in_deviations_of_the_nominal_episodes():
    policy = hopper(normalised=False, factor=0.3)
    _, seen = walk_hopper(policy)
    expected, _ = walk_hopper(policy, noise=0.1 * seen.std(axis=0))
    found = row(swept({"observation noise": [0.1]}, policy), "observation noise", 0.1)
    assert np.allclose(found, expected, rtol=1e-9)  # the rows are summed in another order


def test_simulations_that_break_are_counted_and_kept():
    found = swept({"actuator strength": [1e9]})
    assert found.artefacts[0].broken.tolist() == [0, EPISODES]
    assert math.isnan(found.artefacts[0].returns[1]) and math.isfinite(found.nominal_return)
    assert found.artefacts[0].episode_returns.shape == (2, EPISODES)
    assert np.isfinite(found.artefacts[0].episode_returns).all()


def test_observations_that_the_policy_cannot_act_on_break_their_episodes_alone():
    policy = linear(np.full((3, 11), 3e38), Box((-1.0,) * 3, (1.0,) * 3), "Hopper-v5")
    found = swept({"action delay": [1]}, policy)
    assert found.artefacts[0].broken.tolist() == [EPISODES] * 2 and math.isnan(found.nominal_return)
    actions, refused, _ = variations._predict(hopper(), np.array([[0.1] * 11, [1e300] * 11, [0.2] * 11]), None)
    assert refused.tolist() == [False, True, False]
    assert np.array_equal(actions[[0, 2]], hopper().predict(np.array([[0.1] * 11, [0] * 11, [0.2] * 11]))[0][[0, 2]])


@pytest.fixture(scope="module")
def cart_poles():
    """Reset and step of several slots, compiled once; without a clock."""
    env: Any = make("CartPole-v1", max_episode_steps=None)
    return jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))


def walk_cart_pole(cart_poles, steps, **changed):
    reset, advance = cart_poles
    reset_key = draw(root_key(SEED), "evaluate", 0)
    keys = jax.vmap(lambda episode: jax.random.fold_in(reset_key, episode))(np.arange(EPISODES))
    (state, obs), alive = reset(keys), np.ones(EPISODES, bool)

    def step(action):
        nonlocal state, alive
        state, found = advance(state, action, keys)
        paid, alive = alive.astype(float), alive & ~np.array(found.terminated)
        return np.array(found.next_obs), paid

    return walk(cart_pole(), np.array(obs), step, steps, **changed)[0]


def test_a_classic_task_has_what_needs_no_physics(cart_poles):
    asked = {name: [2] for name in MIXED} | {"action repeat": [12], "action delay": [6]}
    found = sweep(cart_pole(), "CartPole-v1", {"max_episode_steps": 40}, artefacts=asked, episodes=EPISODES, seed=SEED)
    assert set(found.skipped) == {"body mass", "friction", "gravity", "actuator strength", "initial state"}
    assert all("MuJoCo" in reason for reason in found.skipped.values()) and found.corners == {}
    assert row(found, "time limit", 2.0).tolist() == walk_cart_pole(cart_poles, 80).tolist() == [80.0] * EPISODES
    assert row(found, "action delay", 6.0).tolist() == walk_cart_pole(cart_poles, 40, delay=6).tolist()
    assert row(found, "action repeat", 12.0).tolist() == walk_cart_pole(cart_poles, 40, repeat=12).tolist()
    assert found.nominal_return == 40 > row(found, "action repeat", 12.0).min()


def test_a_gymnasium_task_is_swept_through_the_adapter():
    # the lake's safe path: 0 down, 4 down, 8 right, 9 down, 13 right, 14 right, 15 is the goal
    scores = np.zeros((4, 16))
    scores[1, [0, 4, 9]] = scores[2, [8, 13, 14]] = 1
    policy = linear(scores, Discrete(4), "FrozenLake-v1")
    options = {"is_slippery": False, "max_episode_steps": 6}
    asked = {"action delay": [1], "time limit": [0.5, 2], "gravity": [2]}
    found = sweep(policy, "FrozenLake-v1", options, artefacts=asked, episodes=2, threads=1)
    assert list(found.skipped) == ["gravity"]
    assert row(found, "time limit", 1.0).tolist() == row(found, "time limit", 2.0).tolist() == [1.0, 1.0]
    assert row(found, "time limit", 0.5).tolist() == [0.0, 0.0], "the goal is six steps away"
    assert row(found, "action delay", 1.0).tolist() == [0.0, 0.0], "one step late, the path leads into a hole"


@pytest.mark.parametrize("normalised", [False, True])
def test_a_task_with_stacked_frames_is_swept_noise_and_all(normalised):
    """A policy that looks at the newest frame alone earns what it earns on the task itself."""
    weight, action = np.array([[0.0] * 4, [1.0, 2.0, 30.0, 9.0]]), Discrete(2)
    newest = np.concatenate([np.zeros((2, 4)), weight], axis=1)
    before = (Normalise(np.zeros(8), np.full(8, 0.5)),) if normalised else ()
    stacked = Policy(
        (Flatten(), *before, Dense(newest), head_for(action)),
        observation=Box.of(np.full((2, 4), -np.inf), np.full((2, 4), np.inf)),
        action=action,
        task="CartPole-v1",
    )
    options = {"max_episode_steps": 40, "frame_stack": 2}
    noise = {"observation noise": [20.0], "action delay": [1], "body mass": [2.0]}
    found = sweep(stacked, "CartPole-v1", options, artefacts=noise, episodes=3, threads=1)
    assert found.nominal_return > 30
    assert found.artefacts[0].returns[-1] < found.nominal_return
    assert list(found.skipped) == ["body mass"]


def test_what_a_mujoco_task_cannot_have_is_skipped():
    policy = linear(np.zeros((2, 8)), Box((-1.0,) * 2, (1.0,) * 2), "Swimmer-v5")
    found = sweep(
        policy, "Swimmer-v5", {"max_episode_steps": 5}, artefacts={"gravity": [2], "body mass": [2]}, episodes=1
    )
    assert found.skipped == {"gravity": "gravity pulls on none of its joints"}
    assert [artefact.name for artefact in found.artefacts] == ["body mass"] and found.corners == {}


@pytest.mark.parametrize(
    ("artefacts", "message"),
    [
        ({"graviti": [1]}, "got 'graviti': did you mean gravity"),
        ({"body mass": [-1.0]}, "finite numbers above 0 x for the artefact 'body mass', got -1"),
        ({"body mass": [0.0, 1]}, "above 0 x"),
        ({"gravity": [math.inf]}, "'gravity', got inf"),
        ({"friction": [math.nan]}, "'friction', got nan"),
        ({"action delay": [0.5]}, "whole numbers of at least 0 steps for the artefact 'action delay', got 0.5"),
        ({"action repeat": [0]}, "whole numbers of at least 1 steps"),
        ({"gravity": []}, r"list of numbers for the artefact 'gravity', got \[\]: pass values such as \[0.7"),
        ({"gravity": "12"}, "list of numbers for the artefact 'gravity', got '12'"),
        ({"gravity": 2.0}, "list of numbers for the artefact 'gravity', got 2.0"),
    ],
)
def test_ranges_are_checked(artefacts, message):
    with pytest.raises(UsageError, match=message):
        swept(artefacts)


def test_the_rest_is_checked():
    with pytest.raises(UsageError, match="episodes of a sweep to be an integer of at least 1, got 0"):
        swept(None, episodes=0)
    with pytest.raises(UsageError, match="Expected a task with a time limit, got Hopper-v5 without one"):
        sweep(hopper(), "Hopper-v5", {"max_episode_steps": None})
    with pytest.raises(UsageError, match=r"Expected observations of shape \(11,\)"):
        sweep(hopper(), "HalfCheetah-v5")
    with pytest.raises(UsageError, match=r"Expected a task with the actions of probe, .* in CartPole-v1"):
        sweep(linear(np.zeros((2, 4)), Box((-1.0,) * 2, (1.0,) * 2), "probe"), "CartPole-v1")


def test_a_sweep_survives_as_strict_json(mixed):
    broken = swept({"actuator strength": [1e9]})
    for found in (mixed, broken):
        text = json.dumps(to_record(found), allow_nan=False)
        again = from_record(json.loads(text), "here")
        assert json.dumps(to_record(again), allow_nan=False) == text
        assert again.artefacts[0].broken.dtype.kind == "i" and again.episodes == EPISODES
    assert math.isnan(from_record(to_record(broken), "here").artefacts[0].returns[1])


@pytest.mark.parametrize("damage", [{"episodes": 4}, {"artefacts": [{}]}, {"corners": None}, {"nominal_return": "x"}])
def test_a_damaged_record_is_refused(damage, mixed):
    with pytest.raises(UsageError, match=r"Expected a sweep over artefacts in sweep\.json, got something else"):
        from_record({**to_record(mixed), **damage}, "sweep.json")
