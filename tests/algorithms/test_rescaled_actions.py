"""Every algorithm acts in [-1, 1], so a box far from zero is learnt like its copy there; noise never repeats."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import recipes
from workhorse.core.algorithm import OffPolicy
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step, Transitions
from workhorse.environments import registry as environments
from workhorse.environments.batch import JaxBatch, as_batch
from workhorse.environments.protocol import HostEnv
from workhorse.networks.heads import task_action
from workhorse.runs.export import policy_of
from workhorse.training.episodes import evaluation_work, make_player
from workhorse.training.evolve import Evolve
from workhorse.training.lanes import Lanes
from workhorse.training.on_policy import OnPolicyLoop
from workhorse.training.population import PopulationPrograms
from workhorse.training.rollouts import make_collector
from workhorse.training.workforce import Local

MIXED = EnvSpec("Mixed-v0", Box.unbounded(3), Box((5.0, -1.0, 0.0, -(2.0**63)), (35.0, 1.0, np.inf, 2.0**63)), 9)
GRADIENTS: dict[str, Any] = {"num_envs": 8, "held_out_envs": 0, "rollout_steps": 16, "hidden": (8,),
                             "measure_gradients": False, "anneal_learning_rate": False}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "openai-es": {"policy": "mlp", "hidden": (4,), "num_pairs": 8, "noise_std": 0.1, "learning_rate": 0.05},
    "ars": {"policy": "mlp", "hidden": (4,), "num_directions": 8, "num_top_directions": 8, "learning_rate": 0.1},
    "hill-climb": {"policy": "mlp", "hidden": (4,)},
    "finite-differences": {"policy": "mlp", "hidden": (4,), "learning_rate": 0.05, "coordinates": 8},
    "ppo": {**GRADIENTS, "minibatch_size": 32, "learning_rate": 0.01},
    "trpo": {**GRADIENTS, "minibatch_size": 32},
    "a2c": {**GRADIENTS, "learning_rate": 0.01},
    "reinforce": {**GRADIENTS, "learning_rate": 0.03},
}


class Dial(NamedTuple):
    """Pure task of four steps: the reward is the distance of the action from a place in the box, in half-widths."""

    low: float
    high: float
    best: float = 0.3

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec("Dial-v0", Box((-1.0,), (1.0,)), Box((self.low,), (self.high,)), 4)

    def reset(self, key: Any) -> tuple[Any, Any]:
        return jnp.zeros((), jnp.int32), jax.random.uniform(key, (1,), jnp.float64, -1, 1)

    def step(self, state: Any, action: Any, key: Any) -> tuple[Any, Step]:
        half = (self.high - self.low) / 2
        seen = jax.random.uniform(key, (1,), jnp.float64, -1, 1)
        reward = -jnp.abs((action[0] - self.low) / half - 1.0 - self.best).astype(jnp.float64)
        over = state + 1 >= 4
        return state + 1, Step(seen, reward, jnp.zeros((), bool), over, seen, {"failed": jnp.zeros((), bool)})


def loop_of(name: str, env: Any, **settings: Any) -> Any:
    algorithm: Any = registry.make(name, env.spec, {**SETTINGS[name], **settings})
    player = make_player(algorithm, env, getattr(env, "num_slots", 8), 0)
    if hasattr(algorithm, "num_envs"):
        return OnPolicyLoop(algorithm, 0, make_collector(algorithm, env, 0), Lanes([player]))
    programs = PopulationPrograms(algorithm, 0)
    return Evolve(programs, Local(programs, Lanes([player])))


def learnt(name: str, env: Any, iterations: int = 60, **settings: Any) -> tuple[float, float]:
    """Return the noiseless policy's mean distance from the best action, and the last share of actions at one bound."""
    loop = loop_of(name, env, **settings)
    progress, metrics = loop.start(), {}
    for _ in range(iterations):
        progress, metrics, _ = loop.iterate(progress)
    return -float(loop.evaluate(progress, 8).returns.mean()) / 4, metrics["actions_at_one_bound"]


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_box_far_from_zero_is_trained_on_like_its_copy(name: str) -> None:
    """All that differs is rounding, so the returns of the first iterations are the same to a few digits."""
    loops = [loop_of(name, env) for env in (Dial(-1.0, 1.0), Dial(5.0, 35.0))]
    places = [loop.start() for loop in loops]
    for _ in range(3):
        rows = []
        for number, loop in enumerate(loops):
            places[number], row, _ = loop.iterate(places[number])
            rows.append(row)
        copy, far = rows
        assert far["training_return"] == pytest.approx(copy["training_return"], rel=1e-3)
        assert far["actions_at_one_bound"] == pytest.approx(copy["actions_at_one_bound"], abs=0.02)
        assert far["actions_at_one_bound"] < 0.5


@pytest.mark.parametrize("name", ["openai-es", "ppo"])
def test_a_box_far_from_zero_is_learnt(name: str) -> None:
    far, _ = learnt(name, Dial(5.0, 35.0), 25)
    assert far < 0.1


@pytest.mark.parametrize("name", ["openai-es", "ppo"])
def test_without_it_every_action_is_at_the_lower_bound_and_nothing_is_learnt(name: str) -> None:
    far, at_bound = learnt(name, Dial(5.0, 35.0), 5, rescale_actions=False)
    assert far == pytest.approx(1.3, abs=0.05) and at_bound > 0.99


UNBOUNDED = [
    name
    for name in registry.entries()
    if registry.algorithm_class(name).consumes is not Transitions and name not in ("categorical-cem", "uct", "iw")
]
"""Those that take actions without bounds, which an algorithm with a replay refuses, and a planner of choices too."""


@pytest.mark.parametrize("name", UNBOUNDED)
def test_components_with_two_bounds_are_rescaled_and_no_others(name: str) -> None:
    known = registry.options(name)
    assert known["rescale_actions"].default is True and known["rescale_actions"].help
    algorithm: Any = registry.make(name, MIXED, {})
    assert algorithm.spec.action == Box((-1.0, -1.0, 0.0, -(2.0**63)), (1.0, 1.0, np.inf, 2.0**63))
    assert algorithm.spec.unscaled == algorithm.spec.task_action == MIXED.action
    ends = [task_action(algorithm.spec, jnp.array(y, jnp.float32)).tolist() for y in ([-1, -1, 0, 7], [1, 1, 9, -7])]
    assert ends == [[5.0, -1.0, 0.0, 7.0], [35.0, 1.0, 9.0, -7.0]]
    as_it_is: Any = registry.make(name, MIXED, {"rescale_actions": False})
    assert as_it_is.spec is MIXED
    assert as_it_is.settings()["rescale_actions"] is False and algorithm.settings()["rescale_actions"] is True


def test_a_box_of_minus_one_to_one_and_other_spaces_are_as_they_were() -> None:
    for space in (Box((-1.0,) * 2, (1.0,) * 2), Box.unbounded(2), Discrete(3)):
        spec = EnvSpec("Any-v0", Box.unbounded(2), space, 9)
        assert spec.rescaled() is spec
        assert registry.make("ppo", spec, {}).spec is spec


@pytest.mark.parametrize(("low", "high"), [(0.7, 35.3), (1.1, 2.3), (-0.4, 0.4), (1e6, 1e6 + 1), (-3.0, -3.0)])
def test_no_action_is_outside_the_tasks_box_by_rounding(low: float, high: float) -> None:
    spec = EnvSpec("Any-v0", Box.unbounded(1), Box((low,), (high,)), 9).rescaled()
    sent = np.asarray(jax.vmap(lambda y: task_action(spec, y))(jnp.linspace(-1, 1, 999, dtype=jnp.float32)[:, None]))
    assert sent.min() >= np.float32(low) and sent.max() <= np.float32(high)
    np.testing.assert_allclose([sent.min(), sent.max()], [low, high], rtol=1e-5)


@pytest.mark.parametrize("name", ["openai-es", "ppo"])
def test_the_artefact_acts_as_the_loop_does(name: str, tmp_path: Any) -> None:
    from types import SimpleNamespace

    from workhorse.runs.policy import Policy

    for settings in ({}, {"action_bins": 5}) if name == "openai-es" else ({},):
        loop = loop_of(name, Dial(5.0, 35.0), **settings)
        progress, _, _ = loop.iterate(loop.start())
        algorithm, actor = loop.algorithm, loop.algorithm.actor(progress.state)
        about: Any = SimpleNamespace(id="r", algorithm=name, seed=0, versions={})
        made = policy_of(algorithm, actor, about, 1, 8)
        assert made is not None
        policy = Policy.load(made.save(tmp_path / "policy"))
        assert policy.action == Dial(5.0, 35.0).spec.action
        for obs in ([-0.5], [0.0], [900.0]):
            carry = algorithm.begin(actor, jnp.int32(-1))
            y, _, _ = algorithm.act(actor, carry, jnp.array(obs), jax.random.key(0), explore=False)
            np.testing.assert_allclose(policy.predict(obs)[0], task_action(algorithm.spec, y), rtol=1e-5)
    if policy.is_stochastic:
        drawn = np.array([policy.predict([0.0], deterministic=False)[0] for _ in range(400)])
        assert 5 < drawn.std() < 15 and drawn.min() >= 5 and drawn.max() <= 35  # half-widths of 15, clipped


def test_a_rollout_keeps_the_algorithms_numbers_and_the_task_gets_its_own() -> None:
    env: Any = environments.make("Pendulum-v1", 1, 1)
    loop = loop_of("ppo", env)
    actor = loop.algorithm.actor(loop.start().state)
    start = loop.collector.start(actor)
    rollout = loop.collector.collect(actor, start, 0).rollout
    assert 0.9 < np.abs(rollout.action).max() <= 1.0
    keys = jax.random.split(jax.random.key(0), 8)
    _, step = jax.vmap(env.step)(start.environment, 2.0 * jnp.asarray(rollout.action[0]), keys)
    np.testing.assert_allclose(step.next_obs, rollout.next_obs[0], rtol=1e-6)
    recorder: Any = Recorder(8)  # and one on the host
    loop = loop_of("ppo", recorder)
    actor = loop.algorithm.actor(loop.start().state)
    rollout = loop.collector.collect(actor, loop.collector.start(actor), 0).rollout
    np.testing.assert_allclose(np.stack(recorder.told), 100.0 * np.asarray(rollout.action), rtol=1e-6)


def test_recipes_measured_in_the_tasks_own_numbers_say_so() -> None:
    for one in recipes():
        env: Any = environments.make(one.task, 1, 1)
        fits = env.spec.rescaled() is env.spec
        if isinstance(env, HostEnv):
            env.close()
        with_a_replay = issubclass(registry.algorithm_class(one.algorithm), OffPolicy)  # they act in [-1, 1] alone
        assert one.settings.get("rescale_actions") == (None if fits else with_a_replay), one.name


def test_a_run_from_before_goes_on_in_the_tasks_own_numbers() -> None:
    from workhorse.runs.manifest import Manifest
    from workhorse.runs.train import plan_of

    def plan(settings: dict[str, Any]) -> Any:
        return plan_of(
            Manifest.describe(
                id="r", command=(), task="Pendulum-v1", task_options={}, algorithm="ppo", settings=settings, seed=0,
                env_steps=1, slots=9, threads=1,
            )
        )  # fmt: skip

    spec = Dial(5.0, 35.0).spec
    assert plan({}).make_algorithm(spec).spec is spec
    assert plan({"rescale_actions": True}).make_algorithm(spec).spec.unscaled == spec.action


# --- noise ---


class Recorder(JaxBatch):
    """A batch of the Dial that writes down what it is told."""

    def __init__(self, slots: int) -> None:
        super().__init__(Dial(-100.0, 100.0), slots)
        self.told: list[np.ndarray] = []

    def step(self, actions: Any, slots: Any = None, reset_keys: Any = None) -> Step:
        self.told.append(np.array(actions))
        return super().step(actions, slots, reset_keys)


def all_different(rows: np.ndarray) -> None:
    """Check (T, B) numbers: no two steps and no two slots have the same, and neighbours are not alike."""
    assert len(np.unique(rows)) == rows.size
    centred = rows - rows.mean()
    assert abs((centred[:-1] * centred[1:]).mean() / centred.var()) < 0.5
    assert rows.std(0).min() > 0.1 * rows.std() and rows.std(1).min() > 0.1 * rows.std()


def test_noise_on_actions_differs_from_step_to_step_and_from_slot_to_slot_in_whole_episodes() -> None:
    """Members act with one policy (no perturbation to speak of) whose outputs are 0: all that differs is the noise."""
    env: Any = Recorder(8)
    loop = loop_of(
        "openai-es", env, policy="linear", num_pairs=8, noise_std=1e-30, learning_rate=1e-30, action_noise=0.3
    )
    progress, _, _ = loop.iterate(loop.start())
    told = np.stack(env.told)[..., 0]  # two chunks of four steps
    all_different(told.reshape(2, 4, 8).swapaxes(0, 1).reshape(4, 16))
    env.told.clear()
    loop.iterate(progress)
    assert not np.isin(np.stack(env.told)[..., 0], told).any(), "an iteration draws noise of its own"


def test_noise_on_actions_differs_in_rollouts_and_in_a_stochastic_evaluation() -> None:
    for env in (Dial(-100.0, 100.0), as_batch(Dial(-100.0, 100.0), 8)):  # type: ignore[arg-type]
        loop = loop_of("ppo", env, policy="linear", learning_rate=1e-30, log_std=-2.0)
        first, second = loop.start(), None
        actor = loop.algorithm.actor(first.state)
        collected = loop.collector.collect(actor, first.data.slots, 0)
        rollout = np.asarray(collected.rollout.action)[..., 0]
        all_different(rollout)
        second = np.asarray(loop.collector.collect(actor, collected.slots, 1).rollout.action)[..., 0]
        assert not np.isin(second, rollout).any()
    recorder: Any = Recorder(8)
    loop = loop_of("ppo", recorder, policy="linear", log_std=-2.0)
    progress = loop.start()
    one = loop.sample(progress, 8)
    told = np.stack(recorder.told)[..., 0] / 100
    all_different(told)
    work = evaluation_work(0, 8, 8, 0, explore=True)
    assert work.act_stream == "sample", "the draws of an evaluation are not those of training"
    assert work._replace(stream="reset").act_stream == "act"
    np.testing.assert_array_equal(loop.sample(progress, 8).returns, one.returns)
    assert (loop.evaluate(progress, 8).returns != one.returns).all()


# --- constant inputs ---


@pytest.mark.parametrize(
    ("name", "settings"),
    [("openai-es", {"policy": "linear"}), ("openai-es", {}), ("ppo", {}), ("ppo", {"policy": "gru"})],
)
def test_an_input_that_never_varied_is_not_seen_by_the_artefact(name: str, settings: dict[str, Any]) -> None:
    from types import SimpleNamespace

    from workhorse.core.types import Moments

    spec = EnvSpec("Any-v0", Box.unbounded(3), Box((-1.0,) * 2, (1.0,) * 2), 9)
    algorithm: Any = registry.make(name, spec, {**SETTINGS[name], **settings})
    state = algorithm.init(jax.random.key(0))
    seen = Moments(jnp.float64(50.0), jnp.array([1.0, 7.0, -1.0]), jnp.array([50.0, 0.0, 200.0]))
    state = state._replace(observations=seen)
    if name == "openai-es":
        state = state._replace(params=0.5 * jax.random.normal(jax.random.key(1), state.params.shape, jnp.float32))
    actor = algorithm.actor(state)
    policy = policy_of(algorithm, actor, SimpleNamespace(id="r", algorithm=name, seed=0, versions={}), 1, 8)  # type: ignore[arg-type]
    assert policy is not None
    obs = np.array([1.5, 7.0, 0.5], np.float32)
    known, _ = policy.predict(obs)
    carry = algorithm.begin(actor, jnp.int32(-1))
    acted, _, _ = algorithm.act(actor, carry, jnp.asarray(obs), jax.random.key(0), explore=False)
    np.testing.assert_allclose(known, acted, rtol=1e-5, atol=1e-6)
    for value in (-100.0, 7.5, 1e6):
        other, _ = policy.predict([1.5, value, 0.5])
        np.testing.assert_array_equal(other, known)
    assert (policy.predict([2.5, 7.0, 0.5])[0] != known).any(), "the others are seen"


def test_a_first_layer_without_weights_reads_zero_where_an_input_never_varied() -> None:
    from workhorse.core.layers import Activation, Dense, Mode
    from workhorse.networks.layers import scaled_layers
    from workhorse.runs.policy import Policy

    space, inverse = Box.unbounded(2), np.array([1.0, 0.0], np.float32)
    layers = scaled_layers(space, np.zeros(2, np.float32), inverse, 5.0, (Activation("tanh"), Dense(np.eye(2)), Mode()))
    policy = Policy(layers, observation=space, action=Box.unbounded(2), task="Any-v0")
    np.testing.assert_allclose(policy.predict([0.5, 1e6])[0], policy.predict([0.5, 0.0])[0], atol=1e-30)
