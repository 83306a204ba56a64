"""Deep Q-learning: targets, losses and schedules against plain loops, and every setting that has no effect refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.algorithms.value_based.setting import (
    SPEC,
    A,
    D,
    batch_of,
    made,
    moved,
    plain_outputs,
    plain_projection,
    plain_softmax,
)
from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Rollout
from workhorse.data import replay
from workhorse.data.replay import Cursor, Size
from workhorse.runs.policy import Policy

SWITCHES = [
    dict(zip(("double", "dueling", "categorical"), chosen, strict=True))
    for chosen in itertools.product([False, True], repeat=3)
]
RANGE = {"num_atoms": 7, "value_low": -2.0, "value_high": 3.0}


def with_range(switches):
    return switches | (RANGE if switches.get("categorical") else {})


def plain_target(algorithm, state, batch, row):
    """The target of one transition, from the definition."""
    support = np.linspace(-2, 3, 7)
    ahead, chosen_by = (
        plain_outputs(network.mean, batch.next_obs[row])
        for network in (state.target, state.network if algorithm.double else state.target)
    )

    def value(outputs):
        return float(plain_softmax(outputs) @ support) if algorithm.categorical else float(outputs[0])

    best = max(range(A), key=lambda choice: value(chosen_by[choice]))
    reward, discount = 0.5 * float(batch.reward[row]), float(batch.discount[row])
    if not algorithm.categorical:
        return reward + discount * value(ahead[best])
    return plain_projection(plain_softmax(ahead[best]), support, reward, discount)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_targets_are_those_of_a_plain_loop(switches):
    algorithm = made(reward_scale=0.5, **with_range(switches))
    state, batch = moved(algorithm.init(jax.random.key(1))), batch_of(40)
    found = algorithm.target(state, batch, batch.next_obs, jax.random.key(2))
    expected = [plain_target(algorithm, state, batch, row) for row in range(40)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_double_asks_the_learning_network_and_the_others_do_not():
    state, batch = None, batch_of(40)
    found = {}
    for double in (False, True):
        algorithm = made(double=double)
        state = state or moved(algorithm.init(jax.random.key(1)))
        found[double] = np.asarray(algorithm.target(state, batch, batch.next_obs, jax.random.key(2)))
    assert (found[True] <= found[False] + 1e-6).all()  # another choice than the target's best is worth no more
    assert (found[True] < found[False] - 1e-3).any()


@pytest.mark.parametrize("n_steps", [1, 3, 5])
@pytest.mark.parametrize("categorical", [False, True])
def test_a_rollout_gives_the_targets_of_a_loop_over_its_episodes(n_steps, categorical):
    """From steps with terminations and truncations, through the replay, to the target of every window."""
    algorithm = made(n_steps=n_steps, reward_scale=0.5, discount=0.9, **with_range({"categorical": categorical}))
    state, rng, (length, slots) = moved(algorithm.init(jax.random.key(1))), np.random.default_rng(3), (14, 2)
    obs = rng.normal(size=(length + 1, slots, D)).astype(np.float32)
    terminated, truncated = rng.random((2, length, slots)) < 0.15
    truncated &= ~terminated
    finals = rng.normal(size=(length, slots, D)).astype(np.float32)
    ended = terminated | truncated
    following = np.where(ended[..., None], finals, obs[1:])
    action, reward = rng.integers(0, A, (length, slots)), rng.normal(size=(length, slots))
    steps = Rollout(obs[:-1], action, reward, terminated, truncated, following, ())
    size = Size.of(64, slots, 32)
    rows = replay.empty_rows(size, SPEC.observation, SPEC.action)
    rows, cursor, _ = replay.written(size, rows, Cursor.start(), None, steps, obs[-1])
    index = jnp.arange(length * slots)
    batch = replay.transitions(size, rows, cursor, index, jnp.ones(len(index)), n_steps, jnp.float32(0.9))
    found = algorithm.target(state, batch, batch.next_obs, jax.random.key(2))
    assert truncated.any() and terminated.any()
    for number in range(length * slots):
        at, slot = divmod(number, slots)
        total, weight = 0.0, 1.0
        for time in range(at, min(at + n_steps, length)):
            total, weight = total + weight * reward[time, slot], weight * 0.9
            if ended[time, slot]:
                break
        ahead, support = plain_outputs(state.target.mean, following[time, slot]), np.linspace(-2, 3, 7)
        if not categorical:
            expected = 0.5 * total + (0 if terminated[time, slot] else weight * ahead[:, 0].max())
        else:
            shares = [plain_softmax(row) for row in ahead]
            best = max(shares, key=lambda share: share @ support)
            kept = 0.0 if terminated[time, slot] else weight
            expected = plain_projection(best, support, 0.5 * total, kept)
        np.testing.assert_allclose(found[number], expected, atol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_losses_of_values(loss):
    algorithm = made(loss=loss)
    target, outputs = jnp.array([0.0, 0.0, 2.0], jnp.float32), jnp.array([[0.5], [3.0], [-1.0]], jnp.float32)
    each, size = algorithm.losses(outputs, target)
    assert size.tolist() == [0.5, 3.0, 3.0]
    assert each.tolist() == ([0.25, 9.0, 9.0] if loss == "mse" else [0.125, 2.5, 2.5])


def test_the_loss_of_a_distribution_is_the_cross_entropy_and_its_size_the_divergence():
    algorithm, rng = made(categorical=True, **RANGE), np.random.default_rng(0)
    logits = rng.normal(size=(5, 7)).astype(np.float32)
    target = np.array([plain_softmax(row) for row in rng.normal(size=(5, 7))], np.float32)
    target[0], target[1] = np.eye(7)[2], plain_softmax(logits[1])
    each, size = algorithm.losses(jnp.asarray(logits), jnp.asarray(target))
    for row in range(5):
        log_q = np.log(plain_softmax(logits[row].astype(np.float64)))
        cross = -sum(p * q for p, q in zip(target[row], log_q, strict=True))
        entropy = -sum(p * np.log(p) for p in target[row].astype(np.float64) if p > 0)
        np.testing.assert_allclose(each[row], cross, rtol=1e-5)
        np.testing.assert_allclose(size[row], cross - entropy, atol=1e-5)
    assert abs(float(size[1])) < 1e-6 < float(each[1])


@pytest.mark.parametrize("switches", [{}, {"categorical": True}, {"dueling": True, "double": True}], ids=str)
def test_an_update_is_a_step_of_adam_down_the_weighted_loss(switches):
    algorithm = made(reward_scale=0.5, gradient_clip=0.01, learning_rate=0.1, **with_range(switches))
    start, batch = moved(algorithm.init(jax.random.key(1))), batch_of(16)
    target = jnp.array([plain_target(algorithm, start, batch, row) for row in range(16)], jnp.float32)

    def loss(network):
        outputs = jax.vmap(network.mean)(batch.obs)[jnp.arange(16), batch.action]
        return jnp.mean(batch.weight * algorithm.losses(outputs, target)[0])

    gradient = jax.grad(loss)(start.network)
    length = float(optax.tree.norm(gradient))
    assert length > 0.01
    gradient = jax.tree.map(lambda leaf: leaf * (0.01 / length), gradient)
    after, priority, metrics = algorithm.learn(start, batch, jax.random.key(7))
    np.testing.assert_allclose(metrics["critic_gradient_norm"], length, rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_loss"], loss(start.network), rtol=1e-5)

    def by_hand(leaf, slope):  # the first step of Adam: m = .1 g, v = .001 g^2, both without their bias
        return leaf - 0.1 * slope / (np.abs(slope) + 1e-8)

    expected = jax.tree.map(by_hand, start.network, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), after.network, expected)
    assert (priority > 0).all() and after.updates == 1


def test_the_target_network_is_a_copy_every_so_many_updates_and_no_other_moves_it():
    algorithm, batch = made(target_every=3, target_rate=1.0, learning_rate=0.01), batch_of(16)
    state, learn = algorithm.init(jax.random.key(1)), jax.jit(algorithm.learn)
    expected = state.target
    for update in range(1, 8):
        before = state.network
        state, _, _ = learn(state, batch, jax.random.key(update))
        expected = expected if update % 3 else state.network
        jax.tree.map(np.testing.assert_array_equal, state.target, expected)
        assert (state.network.mean.advantage.weights[0] != before.mean.advantage.weights[0]).any()


def test_a_target_rate_moves_it_by_a_share():
    algorithm, batch = made(target_every=1, target_rate=0.25, learning_rate=0.01), batch_of(16)
    before = moved(algorithm.init(jax.random.key(1)))
    after, _, _ = algorithm.learn(before, batch, jax.random.key(0))
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, before.target, after.network)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.target, expected)


@pytest.mark.parametrize("switches", [{}, {"categorical": True}], ids=str)
def test_a_row_of_weight_zero_teaches_nothing_and_its_priority_is_renewed_all_the_same(switches):
    algorithm = made(prioritised=True, **with_range(switches))
    state, batch = moved(algorithm.init(jax.random.key(1))), batch_of(16)
    silent = batch._replace(weight=np.where(np.arange(16) == 3, 0, batch.weight).astype(np.float32))
    other = silent._replace(reward=np.where(np.arange(16) == 3, 9.0, batch.reward).astype(np.float32))
    (one, before, _), (two, now, metrics) = (
        algorithm.learn(state, each, jax.random.key(0)) for each in (silent, other)
    )
    jax.tree.map(np.testing.assert_array_equal, one.network, two.network)
    assert now[3] != before[3]
    np.testing.assert_array_equal(np.delete(now, 3), np.delete(before, 3))
    np.testing.assert_allclose(metrics["importance_weight_mean"], silent.weight.mean(), rtol=1e-6)


def test_a_transition_without_error_keeps_a_priority():
    algorithm = made(prioritised=True, discount=0.0)
    state, batch = algorithm.init(jax.random.key(1)), batch_of(16, discount=0.0)
    value = jax.vmap(state.network.mean)(batch.obs)[jnp.arange(16), batch.action, 0]
    _, priority, _ = algorithm.learn(state, batch._replace(reward=value), jax.random.key(0))
    assert (np.asarray(priority) > 0).all() and (np.asarray(priority) < 1e-5).all()


def test_epsilon_is_a_function_of_the_steps_of_the_whole_run():
    algorithm = made(epsilon=0.9, final_epsilon=0.1, exploration_env_steps=200)
    for steps, expected in [(0, 0.9), (50, 0.7), (100, 0.5), (200, 0.1), (10**9, 0.1)]:
        state = algorithm.init(jax.random.key(0))._replace(env_steps=jnp.asarray(steps, jnp.int64))
        np.testing.assert_allclose(algorithm.actor(state).epsilon, expected, rtol=1e-6)
        _, _, metrics = algorithm.learn(state, batch_of(16), jax.random.key(0))
        np.testing.assert_allclose(metrics["epsilon"], expected, rtol=1e-6)


def test_the_exponent_of_the_weights_is_annealed_over_the_planned_steps():
    annealed = made(prioritised=True, importance_power=0.4, final_importance_power=0.8, anneal_env_steps=400)
    fixed = made(prioritised=True, importance_power=0.6, final_importance_power=0.6, anneal_env_steps=400)
    for steps, expected in [(0, 0.4), (100, 0.5), (400, 0.8), (9000, 0.8)]:
        state = annealed.init(jax.random.key(0))._replace(env_steps=jnp.asarray(steps, jnp.int64))
        np.testing.assert_allclose(annealed.importance_exponent(state), expected, rtol=1e-6)
        np.testing.assert_allclose(fixed.importance_exponent(state), 0.6, rtol=1e-6)
    assert made().priority_exponent is None
    assert made(prioritised=True, priority_power=0.7).priority_exponent == 0.7


def test_the_learning_rate_falls_to_zero_over_the_planned_steps_where_that_is_asked_for():
    annealed, constant = (made(anneal_learning_rate=one, anneal_env_steps=400) for one in (True, False))
    for steps, expected in [(0, 1e-3), (100, 7.5e-4), (400, 0.0), (9000, 0.0)]:
        state = annealed.init(jax.random.key(0))._replace(env_steps=jnp.asarray(steps, jnp.int64))
        after, _, metrics = annealed.learn(state, batch_of(16), jax.random.key(0))
        np.testing.assert_allclose(metrics["learning_rate"], expected, rtol=1e-6)
        weight, before = (one.network.mean.advantage.weights[-1] for one in (after, state))
        np.testing.assert_allclose(jnp.abs(weight - before).max(), expected, rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(constant.rate(state), 1e-3, rtol=1e-6)


def frequencies(algorithm, state, obs, count=4000):
    actor = algorithm.actor(state)
    act = jax.vmap(lambda key: algorithm.act(actor, (), obs, key, explore=True)[0])
    return np.bincount(np.asarray(jax.jit(act)(jax.random.split(jax.random.key(8), count))), minlength=A) / count


def test_actions_are_random_in_the_warm_up_and_then_with_probability_epsilon():
    algorithm = made(epsilon=0.3, final_epsilon=0.3)
    state, obs = algorithm.init(jax.random.key(3)), jnp.ones(D, jnp.float32)
    best = int(algorithm.act(algorithm.actor(state), (), obs, jax.random.key(0), explore=False)[0])
    np.testing.assert_allclose(frequencies(algorithm, state, obs), 1 / 3, atol=0.03)
    later = state._replace(env_steps=jnp.asarray(32, jnp.int64))
    expected = np.where(np.arange(A) == best, 0.7 + 0.1, 0.1)
    np.testing.assert_allclose(frequencies(algorithm, later, obs), expected, atol=0.03)


PRESETS = {
    "ddqn": {"double": True},
    "c51": {"categorical": True},
    "rainbow": {
        "double": True, "n_steps": 3, "prioritised": True, "dueling": True, "noisy": True, "categorical": True,
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "changed"), PRESETS.items())
def test_presets_differ_in_what_they_say(name, changed):
    plain, preset = (registry.make(one, SPEC, {}).settings() for one in ("dqn", name))
    assert {option: preset[option] for option in plain if plain[option] != preset[option]} == changed


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dqn", {"priority_power": 0.7}, r"DQN.priority_power has no effect without prioritised: got 0.7. Set prio"),
        ("dqn", {"importance_power": 0.5}, "importance_power has no effect without prioritised"),
        ("dqn", {"final_importance_power": 0.5}, "final_importance_power has no effect without prioritised"),
        ("ddqn", {"noise_std": 0.1}, "noise_std has no effect without noisy"),
        ("dqn", {"num_atoms": 21}, "num_atoms has no effect without categorical"),
        ("dqn", {"value_low": 0.0}, "value_low has no effect without categorical"),
        ("dqn", {"value_high": 1.0}, "value_high has no effect without categorical"),
        ("rainbow", {"epsilon": 0.5}, "epsilon has no effect with noisy: got 0.5. Leave one of the two out"),
        ("rainbow", {"final_epsilon": 0.01}, "final_epsilon has no effect with noisy"),
        ("rainbow", {"exploration_env_steps": 5}, "exploration_env_steps has no effect with noisy"),
        ("c51", {"loss": "huber"}, "loss has no effect with categorical: got huber"),
        ("c51", {"num_atoms": 1}, "num_atoms must be at least 2: got 1"),
        ("c51", {"value_low": 3.0, "value_high": 3.0}, "value_low must be below value_high: got 3 and 3"),
        ("dqn", {"epsilon": 1.5}, r"epsilon must be in \[0, 1\]: got 1.5"),
        ("dqn", {"final_epsilon": -0.1}, r"final_epsilon must be in \[0, 1\]"),
        ("rainbow", {"importance_power": 2.0}, r"importance_power must be in \[0, 1\]"),
        ("rainbow", {"priority_power": 0.0}, "priority_power must be a finite number above 0"),
        ("rainbow", {"noise_std": -1.0}, "noise_std must be a finite number of at least 0"),
        ("dqn", {"target_every": 0}, "target_every must be a finite number above 0"),
        ("dqn", {"exploration_env_steps": 0}, "exploration_env_steps must be a finite number above 0"),
        ("dqn", {"gradient_clip": 0.0}, "gradient_clip must be a finite number above 0"),
        ("dqn", {"loss": "l1"}, "dqn.loss must be one of mse, huber"),
        ("dqn", {"batch_size": 64}, "batch_size must not exceed warmup_env_steps"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, settings, message):
    with pytest.raises(UsageError, match=message):
        made(name, **settings)


def test_continuous_actions_are_refused_and_the_others_named():
    continuous = EnvSpec("Pendulum-v1", Box.unbounded(3), Box((-2.0,), (2.0,)), 200)
    with pytest.raises(UsageError, match=r"DQN needs discrete actions, .* Pendulum-v1 are continuous: choose sac, td3"):
        made("dqn", continuous)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("name", ["dqn", "ddqn", "c51", "rainbow", "sac-discrete"])
def test_the_artefact_in_numpy_and_in_onnx_acts_as_the_algorithm(name, normalise):
    algorithm = made(name, normalise_observations=normalise)
    state = moved(algorithm.init(jax.random.key(1)))
    steps = Rollout(batch_of(40).obs.reshape(20, 2, D), *(np.zeros((20, 2)),) * 4, (), ())
    actor = algorithm.actor(algorithm.observe(state, steps))
    obs = batch_of(200, seed=2).obs
    act = jax.jit(jax.vmap(lambda one: algorithm.act(actor, (), one, jax.random.key(0), explore=False)[0]))
    expected = np.asarray(act(obs))
    layers = algorithm.policy_layers(actor)
    policy = Policy(layers, observation=SPEC.observation, action=Discrete(A), task="probe")
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(policy.predict(obs)[0], expected)
    assert policy.is_stochastic == algorithm.is_stochastic
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from workhorse.runs.onnx_model import onnx_bytes

    session = onnxruntime.InferenceSession(onnx_bytes(policy), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"observation": obs})[0], expected)
