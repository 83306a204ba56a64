"""sac-n: target, losses and statistics against NumPy; what each switch changes; scale of rewards, noise, artefact."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Rollout, Step, Transitions
from workhorse.math.reward_scale import RewardSums
from workhorse.networks.batch_norm import NormalisedMLP
from workhorse.runs.policy import Policy
from workhorse.runs.schedule import check_annealing
from workhorse.training.rollouts import make_collector

SPEC = EnvSpec("test", Box.unbounded(3), Box((-1.0, -2.0), (1.0, 2.0)), 100)
SMALL = {
    "hidden": (8, 7), "batch_size": 12, "warmup_env_steps": 20, "discount": 0.9, "num_atoms": 11, "value_limit": 2.0,
    "policy_every": 1,
}  # fmt: skip
NUMBERS = {"categorical": False, "num_atoms": 101}
"""Settings without distributions: the number of atoms has no effect then."""
KEY = jax.random.key(5)


# The algorithm is an argument of the programs, so that settings which differ in numbers alone share one.
begin = jax.jit(lambda algorithm, seed: algorithm.init(jax.random.key(seed)))
learn = jax.jit(lambda algorithm, state, batch, key: algorithm.learn(state, batch, key))


def made(**settings):
    return registry.make("sac-n", SPEC, SMALL | settings)


def batch_of(seed=0, count=12):
    """Transitions that are noise; every third terminates, and windows have one to three steps."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(1.0, 2.0, size=(2, count, 3)).astype(np.float32)
    terminated, steps = np.arange(count) % 3 == 0, 1 + np.arange(count) % 4 % 3
    discount = (0.9**steps * ~terminated).astype(np.float32)
    return Transitions(
        obs, rng.uniform(-1, 1, (count, 2)).astype(np.float32), rng.normal(size=count).astype(np.float32), discount,
        next_obs, terminated, ~terminated, steps.astype(np.int32), np.arange(count),
        rng.uniform(0.2, 1, count).astype(np.float32), np.arange(count),
    )  # fmt: skip


def state_of(algorithm, seed=0, updates=0):
    """A state whose networks are not those of the start, whose targets are others, and that has seen rewards."""
    rng = np.random.default_rng(seed)

    def noisy(leaf):
        return leaf + jnp.asarray(rng.normal(size=leaf.shape) * 0.3, jnp.float32)

    def positive(leaf):
        return leaf * jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)

    state = begin(algorithm, seed)
    rewards = RewardSums.start(algorithm.num_envs).after(
        jnp.asarray(rng.normal(1.0, 3.0, size=(30, algorithm.num_envs))), jnp.zeros((30, algorithm.num_envs), bool), 0.9
    )
    changed = {name: jax.tree.map(noisy, getattr(state, name)) for name in ("policy", "critics", "targets")}
    statistics = {
        name: jax.tree.map(positive, jax.tree.map(lambda leaf: leaf + 0.1, getattr(state, name)))
        for name in ("policy_statistics", "critic_statistics")
    }
    return state._replace(**changed, **statistics, rewards=rewards, updates=jnp.int64(updates))


# --- the same in NumPy, double precision ---


def run(network, x, given=None):
    """Outputs of a network and the statistics used: those of the rows, or those given; layer norms if it has them."""
    x, used = np.asarray(x, float), []
    for layer, weight in enumerate(network.weights):
        if network.norm == "batch":
            mean, variance = (x.mean(0), x.var(0)) if given is None else map(np.asarray, given[layer])
            used.append((mean, variance))
            scale, shift = np.asarray(network.scales[layer]), np.asarray(network.shifts[layer])
            x = (x - mean) / np.sqrt(variance + 1e-3) * scale + shift
        elif layer:
            scale, shift = np.asarray(network.scales[layer - 1]), np.asarray(network.shifts[layer - 1])
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * scale + shift
        x = (np.maximum(x, 0) if layer else x) @ np.asarray(weight, float).T
    return x + np.asarray(network.bias), used


def softmax(logits):
    exponent = np.exp(logits - logits.max(1, keepdims=True))
    return exponent / exponent.sum(1, keepdims=True)


def factor_of(algorithm, state):
    """The factor of rewards after the definition, from the moments that the state holds."""
    if not algorithm.scale_rewards:
        return algorithm.reward_scale
    count, _, deviation = state.rewards.moments
    return 1 / max(float(np.sqrt(deviation[0] / count)), float(state.rewards.largest) / algorithm.value_limit)


def drawn(algorithm, policy, given, obs, key):
    """Actions and their log densities, from the noise of a key: -log(1 - tanh(u)^2) is 2 log cosh(u)."""
    mean, spread = np.split(run(policy, obs, given)[0], 2, axis=1)
    std = np.exp(-10 + 6 * (1 + np.tanh(spread)))
    noise = np.asarray(jax.random.normal(key, (len(obs), algorithm.action_size), jnp.float32), float)
    u = mean + std * noise
    density = -0.5 * noise**2 - np.log(std) - 0.5 * np.log(2 * np.pi) + 2 * np.logaddexp(u, -u) - 2 * np.log(2)
    return np.tanh(u), density.sum(1)


def project(algorithm, probability, reward, discount):
    """Every mass to the two atoms around where it falls, one after the other."""
    limit, count = algorithm.value_limit, algorithm.num_atoms
    width, found = 2 * limit / (count - 1), np.zeros(count)
    for atom in range(count):
        value = min(max(reward + discount * (-limit + atom * width), -limit), limit)
        for other in range(count):
            found[other] += probability[atom] * max(0.0, 1 - abs(value + limit - other * width) / width)
    return found


def rows_of(algorithm, state, batch):
    """What critics are shown: a step's observation and action, and those of its successor, with their log density."""
    next_key, _ = jax.random.split(KEY)
    next_action, log_prob = drawn(algorithm, state.policy, state.policy_statistics, batch.next_obs, next_key)
    now = np.concatenate([batch.obs, batch.action], axis=1)
    return now, np.concatenate([batch.next_obs, next_action], axis=1), log_prob


def outputs_of(algorithm, critic, now, then):
    """A critic's outputs at the step and at the successor, and what its batch norms saw."""
    if algorithm.joint_pass:
        both, used = run(critic, np.concatenate([now, then]))
        return both[: len(now)], both[len(now) :], used
    first, used = run(critic, now)
    return first, run(critic, then)[0], used


def target_of(algorithm, state, batch):
    """The target of a batch: probabilities of the atoms, or a number each."""
    now, then, log_prob = rows_of(algorithm, state, batch)
    known = state.targets if algorithm.target_network else state.critics
    outputs = [outputs_of(algorithm, critic, now, then)[1] for critic in known]
    reward = factor_of(algorithm, state) * batch.reward
    reward = reward - batch.discount * np.exp(float(state.log_temperature)) * log_prob
    if not algorithm.categorical:
        return (reward + batch.discount * np.minimum(*(one[:, 0] for one in outputs)))[:, None]
    support = np.linspace(-algorithm.value_limit, algorithm.value_limit, algorithm.num_atoms)
    target, pairs = [], zip(*map(softmax, outputs), strict=True)
    for number, pair in enumerate(pairs):
        smaller = min(pair, key=lambda one: one @ support)
        target.append(project(algorithm, smaller, reward[number], batch.discount[number]))
    return np.array(target)


def losses_of(algorithm, target, outputs):
    if algorithm.categorical:
        return -(target * np.log(softmax(outputs))).sum(1)
    return np.square(outputs - target)[:, 0]


def means_of(algorithm, outputs, *, are_logits):
    if not algorithm.categorical:
        return outputs[:, 0]
    support = np.linspace(-algorithm.value_limit, algorithm.value_limit, algorithm.num_atoms)
    return (softmax(outputs) if are_logits else outputs) @ support


WAYS = {
    "as it is": {},
    "no joint pass": {"joint_pass": False},
    "no gradient through successors": {"stop_successor_gradient": True},
    "no target network": {"target_network": False},
    "neither": {"target_network": False, "joint_pass": False},
    "numbers": NUMBERS,
    "layer norm": {"batch_norm": False, "joint_pass": False},
    "raw rewards": {"scale_rewards": False, "reward_scale": 0.3},
}
every_way = pytest.mark.parametrize("settings", list(WAYS.values()), ids=list(WAYS))


@every_way
def test_target_loss_and_metrics_are_what_numpy_makes_of_a_batch(settings):
    algorithm, batch = made(**settings), batch_of()
    state = state_of(algorithm)
    target, (now, then, _) = target_of(algorithm, state, batch), rows_of(algorithm, state, batch)
    outputs = [outputs_of(algorithm, critic, now, then)[0] for critic in state.critics]
    _, error, metrics = learn(algorithm, state, batch, KEY)
    value, aimed = means_of(algorithm, outputs[0], are_logits=True), means_of(algorithm, target, are_logits=False)
    close = {"rtol": 2e-3, "atol": 2e-4}
    np.testing.assert_allclose(metrics["value"], value.mean(), **close)
    np.testing.assert_allclose(metrics["value_max"], value.max(), **close)
    np.testing.assert_allclose(metrics["target"], aimed.mean(), **close)
    np.testing.assert_allclose(metrics["critic_loss"], losses_of(algorithm, target, outputs[0]).mean(), **close)
    np.testing.assert_allclose(metrics["reward_factor"], factor_of(algorithm, state), rtol=1e-5)
    np.testing.assert_allclose(error, np.abs(value - aimed), rtol=2e-3, atol=1e-3)
    if algorithm.categorical:
        np.testing.assert_allclose(
            metrics["support_end_mass"], softmax(outputs[0])[:, [0, -1]].sum(1).mean(), **close
        )  # fmt: skip
    else:
        assert "support_end_mass" not in metrics


@pytest.mark.parametrize("which", [0, 1])
def test_the_target_is_the_distribution_of_the_critic_with_the_smaller_mean(which):
    """Two critics that are certain of an atom each, at reward 0.25 and discount 0.5."""
    algorithm = made(num_atoms=5)  # -2, -1, 0, 1, 2
    low, high = (jnp.asarray(60.0 * np.eye(5)[[atom, 2]], jnp.float32) for atom in (1, 4))
    outputs = (low, high) if which == 0 else (high, low)
    found = algorithm.target(outputs, jnp.asarray([0.25, 0.25], jnp.float32), jnp.asarray([0.5, 0.0], jnp.float32))
    np.testing.assert_allclose(found[0], [0, 0.25, 0.75, 0, 0], atol=1e-6)  # at 0.25 + 0.5 * -1
    np.testing.assert_allclose(found[1], [0, 0, 0.75, 0.25, 0], atol=1e-6)  # terminated: at the reward


def test_what_falls_beyond_the_support_goes_to_its_ends():
    algorithm, certain = made(num_atoms=5), jnp.asarray(60.0 * np.eye(5)[[4, 0]], jnp.float32)
    found = algorithm.target((certain, certain), jnp.asarray([9.0, -9.0], jnp.float32), jnp.full(2, 0.9, jnp.float32))
    np.testing.assert_allclose(found, np.eye(5)[[4, 0]], atol=1e-6)


@every_way
def test_running_statistics_move_by_a_share_towards_what_the_learning_networks_saw(settings):
    algorithm, batch = made(**settings), batch_of()
    state = state_of(algorithm)
    after, _, _ = learn(algorithm, state, batch, KEY)
    if not algorithm.batch_norm:
        assert jax.tree.leaves((after.critic_statistics, after.policy_statistics)) == []
        return
    now, then, _ = rows_of(algorithm, state, batch)
    used = [outputs_of(algorithm, critic, now, then)[2] for critic in state.critics]
    used.append(run(state.policy, batch.obs)[1])
    before = (*state.critic_statistics, state.policy_statistics)
    now = (*after.critic_statistics, after.policy_statistics)
    for old, seen, new in zip(before, used, now, strict=True):
        for layer in range(3):
            for part in range(2):
                expected = 0.99 * np.asarray(old[layer][part]) + 0.01 * seen[layer][part]
                np.testing.assert_allclose(new[layer][part], expected, rtol=1e-4, atol=1e-5)


def test_targets_are_asked_with_statistics_of_their_own():
    """Weights before a batch norm may be three times as large: only with another network's statistics it matters."""
    algorithm, batch = made(unit_norm=False), batch_of()
    state = state_of(algorithm)

    def larger(network):
        *hidden, last = network.weights
        return NormalisedMLP(network.scales, network.shifts, (*(3 * w for w in hidden), last), network.bias)

    metrics = learn(algorithm, state, batch, KEY)[2]
    other = learn(algorithm, state._replace(targets=tuple(map(larger, state.targets))), batch, KEY)[2]
    assert float(metrics["target"]) == pytest.approx(float(other["target"]), abs=2e-2)
    assert jax.tree.structure(state.targets) == jax.tree.structure(state.critics)


def test_targets_go_a_share_of_the_way_to_the_new_critics():
    algorithm = made(target_rate=0.25, learning_rate=0.05)
    state = state_of(algorithm)
    after, _, _ = learn(algorithm, state, batch_of(), KEY)
    leaves = map(jax.tree.leaves, (state.targets, after.targets, after.critics))
    for old, new, goal in zip(*leaves, strict=True):
        np.testing.assert_allclose(new, 0.75 * np.asarray(old) + 0.25 * np.asarray(goal), atol=1e-6)
    assert after.updates == 1


# --- directions ---


def first_step(before, after, rate):
    """The sign of the gradient in each entry, which is all that Adam's first step tells."""
    return (np.asarray(before, float) - np.asarray(after, float)) / rate


def slopes(loss, network, layer, entries, size=1e-5):
    """Central differences of a loss in entries of a layer's weights, in double precision."""
    found = []
    for entry in entries:
        pair = []
        for sign in (1, -1):
            weights = [np.array(weight, float) for weight in network.weights]
            weights[layer][entry] += sign * size
            pair.append(loss(SimpleNamespace(**{**vars_of(network), "weights": weights})))
        found.append((pair[0] - pair[1]) / (2 * size))
    return np.array(found)


def vars_of(network):
    return {name: getattr(network, name) for name in ("scales", "shifts", "weights", "bias", "norm")}


@pytest.mark.parametrize("settings", [{}, NUMBERS, {"target_network": False}, {"joint_pass": False}])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_critics_go_down_the_weighted_loss_and_not_up_their_targets(layer, settings):
    algorithm, batch = made(learning_rate=0.01, unit_norm=False, **settings), batch_of()
    state = state_of(algorithm)
    after, _, _ = learn(algorithm, state, batch, KEY)
    target, (now, then, _) = target_of(algorithm, state, batch), rows_of(algorithm, state, batch)

    def loss(critic):
        return np.mean(batch.weight * losses_of(algorithm, target, outputs_of(algorithm, critic, now, then)[0]))

    before = state.critics[0]
    entries = list(np.ndindex(before.weights[layer].shape))[:25]
    slope = slopes(loss, before, layer, entries)
    step = first_step(before.weights[layer], after.critics[0].weights[layer], 0.01)
    clear = np.abs(slope) > 1e-3
    assert clear.sum() >= 5
    np.testing.assert_allclose(step[tuple(np.array(entries).T)][clear], np.sign(slope)[clear], atol=2e-2)


def policy_loss(algorithm, state, policy, obs, key):
    """The loss of a policy in training mode, by the critics with their running statistics."""
    action, log_prob = drawn(algorithm, policy, None, obs, key)
    rows = np.concatenate([obs, action], axis=1)
    values = [
        means_of(algorithm, run(critic, rows, given)[0], are_logits=True)
        for critic, given in zip(state.critics, state.critic_statistics, strict=True)
    ]
    temperature = np.exp(float(state.log_temperature))
    return np.mean(temperature * log_prob - np.minimum(*values)), -log_prob.mean()


@pytest.mark.parametrize("layer", [0, 2])
def test_the_policy_climbs_the_new_critics_in_use_and_not_in_training(layer):
    algorithm, batch = made(learning_rate=0.01, unit_norm=False), batch_of()
    state = state_of(algorithm)
    after, _, metrics = learn(algorithm, state, batch, KEY)
    key = jax.random.split(KEY)[1]
    new_critics = after._replace(log_temperature=state.log_temperature)
    loss, entropy = policy_loss(algorithm, new_critics, state.policy, batch.obs, key)
    np.testing.assert_allclose(metrics["policy_loss"], loss, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=2e-3, atol=1e-3)

    def loss_of(policy):
        return policy_loss(algorithm, new_critics, policy, batch.obs, key)[0]

    entries = list(np.ndindex(state.policy.weights[layer].shape))
    slope = slopes(loss_of, state.policy, layer, entries)
    step = first_step(state.policy.weights[layer], after.policy.weights[layer], 0.01)
    clear = np.abs(slope) > 1e-3
    assert clear.sum() >= 5
    np.testing.assert_allclose(step[tuple(np.array(entries).T)][clear], np.sign(slope)[clear], atol=2e-2)


@pytest.mark.parametrize(("wanted", "sign"), [(-50.0, -1), (1.3, 1)])
def test_the_temperature_falls_where_the_entropy_is_above_its_target_and_rises_below(wanted, sign):
    algorithm = made(target_entropy=wanted, learning_rate=0.01)
    state = state_of(algorithm)
    after, _, metrics = learn(algorithm, state, batch_of(), KEY)
    assert np.sign(wanted - metrics["entropy"]) == sign
    assert float(after.log_temperature - state.log_temperature) == pytest.approx(sign * 0.01, rel=1e-3)
    kept = made(learn_temperature=False)
    assert learn(kept, state, batch_of(), KEY)[0].log_temperature == state.log_temperature


def test_the_target_entropy_is_that_of_a_normal_with_deviation_15_hundredths():
    std = 0.15
    entropy = 2 * (0.5 + 0.5 * np.log(2 * np.pi) + np.log(std))  # of two components
    assert float(made().wanted_entropy) == pytest.approx(entropy, rel=1e-6)
    assert float(made().wanted_entropy) / 2 == pytest.approx(-0.478, abs=5e-4)
    assert float(made(target_entropy=-3.0).wanted_entropy) == -3.0


# --- what is done how often, and how far ---


def bits(tree):
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))


OF_POLICY = ("policy", "policy_statistics", "policy_memory", "log_temperature", "temperature_memory")


def test_policy_and_temperature_wait_for_their_turn_to_the_bit():
    algorithm, batch = made(policy_every=3), batch_of()
    every, state = made(), state_of(algorithm)
    for number in range(1, 7):
        after, _, metrics = learn(algorithm, state, batch, KEY)
        changed = {name for name in OF_POLICY if bits(getattr(after, name)) != bits(getattr(state, name))}
        assert changed == (set(OF_POLICY) if number % 3 == 0 else set())
        assert bits(after.critics) != bits(state.critics)
        once = learn(every, state, batch, KEY)[2]
        for name in (
            "policy_loss",
            "entropy",
            "saturated_actions",
        ):  # so that a mean over updates is one over those due
            assert float(metrics[name]) == pytest.approx(3 * float(once[name]) * (number % 3 == 0), rel=1e-4, abs=1e-6)
        state = after


def lengths(network):
    *hidden, last = (np.asarray(weight, float) for weight in network.weights)
    found = [np.linalg.norm(weight, axis=1) for weight in hidden]
    return np.concatenate([*found, np.linalg.norm(np.column_stack([last, network.bias]), axis=1)])


def test_every_unit_has_weights_of_length_one_after_every_step_and_else_nothing_changes():
    bound, free, batch = made(learning_rate=0.05), made(learning_rate=0.05, unit_norm=False), batch_of()
    state = begin(bound, 0)
    for network in (state.policy, *state.critics):
        np.testing.assert_allclose(lengths(network), 1, atol=1e-6)
    unbound, _, _ = learn(free, state, batch, KEY)
    assert np.abs(lengths(unbound.critics[0]) - 1).max() > 1e-3
    after, _, _ = learn(bound, state, batch, KEY)
    for found, before in zip(after.critics, unbound.critics, strict=True):
        expected = before.with_unit_weights()
        flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one)]) for one in (found, expected)]
        np.testing.assert_allclose(*flat, atol=1e-6)
    for _ in range(5):
        state, _, _ = learn(bound, state, batch, KEY)
        for network in (state.policy, *state.critics):
            np.testing.assert_allclose(lengths(network), 1, atol=1e-6)


def test_the_learning_rate_falls_along_a_cosine_to_its_last_share_and_stays_there():
    algorithm = made(learning_rate=0.01, anneal_env_steps=1000)
    state = begin(algorithm, 0)

    def rate(algorithm, env_steps):
        return float(algorithm.rate(state._replace(env_steps=jnp.int64(env_steps))))

    expected = {0: 0.01, 250: 0.005 * (1 + 0.5 * (1 + np.cos(np.pi / 4))), 500: 0.0075, 1000: 0.005, 2000: 0.005}
    for env_steps, one in expected.items():
        assert rate(algorithm, env_steps) == pytest.approx(one, rel=1e-6)
    assert rate(made(learning_rate=0.01, anneal_env_steps=1000, final_learning_rate_share=0.1), 1000) == pytest.approx(
        1e-3
    )
    assert rate(made(learning_rate=0.01, anneal_env_steps=1000, anneal_learning_rate=False), 1000) == pytest.approx(
        0.01
    )
    late = state._replace(env_steps=jnp.int64(1000))
    free = made(learning_rate=0.01, anneal_env_steps=1000, unit_norm=False)
    after, _, metrics = learn(free, late, batch_of(), KEY)
    assert float(metrics["learning_rate"]) == pytest.approx(0.005)
    moved = np.abs(np.asarray(after.critics[0].weights[0] - state.critics[0].weights[0]))
    assert np.median(moved) == pytest.approx(0.005, rel=1e-2)  # Adam's first step has the length of the rate


def test_a_run_is_not_extended_beyond_the_end_of_its_learning_rate():
    settings = {"anneal_learning_rate": True, "anneal_env_steps": 600, "final_learning_rate_share": 0.5}
    folder, manifest = SimpleNamespace(path="runs/x"), SimpleNamespace(settings=settings, env_steps=600)
    check_annealing(folder, manifest, 600)
    with pytest.raises(
        UsageError, match=r"fall to 50% of its start at 600 steps.*from there to 601: .*--anneal-env-steps 601"
    ):
        check_annealing(folder, manifest, 601)
    manifest.settings = settings | {"anneal_learning_rate": False}
    check_annealing(folder, manifest, 601)


# --- switches ---


def test_gradients_through_successors_change_the_critics_alone():
    free, stopped, batch = made(), made(stop_successor_gradient=True), batch_of()
    state = state_of(free)
    (one, _, first), (other, _, second) = (learn(each, state, batch, KEY) for each in (free, stopped))
    same = ("value", "target", "critic_loss", "support_end_mass", "reward_factor", "learning_rate")
    assert {name: float(first[name]) for name in same} == pytest.approx({name: float(second[name]) for name in same})
    np.testing.assert_allclose(one.critic_statistics[0][2].mean, other.critic_statistics[0][2].mean, rtol=1e-5)
    assert float(first["critic_gradient_norm"]) != pytest.approx(float(second["critic_gradient_norm"]), rel=1e-3)


def test_without_target_networks_there_are_none():
    algorithm = made(target_network=False)
    state = state_of(algorithm)
    assert state.targets == () and learn(algorithm, state, batch_of(), KEY)[0].targets == ()


def test_rewards_of_another_unit_lead_to_the_same_networks():
    """The scale follows the unit: only without it a thousandfold reward is another one."""
    batch = batch_of()
    for settings, is_equal in (({}, True), ({"scale_rewards": False}, False)):
        algorithm, found = made(**settings), []
        for unit in (1.0, 1000.0):
            state = state_of(algorithm)
            reward = unit * jnp.asarray(np.random.default_rng(1).normal(size=(20, 1)))
            no = jnp.zeros((20, 1), bool)
            state = state._replace(rewards=RewardSums.start(1).after(reward, no, 0.9))
            found.append(learn(algorithm, state, batch._replace(reward=np.float32(unit) * batch.reward), KEY))
        (one, _, first), (other, _, second) = found
        near = np.allclose(one.critics[0].weights[2], other.critics[0].weights[2], atol=1e-5)
        assert near == is_equal
        assert (float(first["target"]) == pytest.approx(float(second["target"]), rel=1e-4)) == is_equal
        obs, action = batch.obs[0], batch.action[0]
        ratio = float(
            algorithm.action_value(one, obs, action)
            / algorithm.action_value(one._replace(rewards=other.rewards), obs, action)
        )
        assert ratio == pytest.approx(1e-3 if is_equal else 1.0, rel=1e-4)  # a value is told in raw rewards


def test_the_entropy_of_a_drawn_action_is_told_in_raw_rewards():
    algorithm, obs = made(), jnp.asarray([0.3, -1.0, 2.0], jnp.float32)
    state = state_of(algorithm)
    log_prob = drawn(algorithm, state.policy, state.policy_statistics, obs[None], KEY)[1][0]
    expected = -np.exp(float(state.log_temperature)) * log_prob / factor_of(algorithm, state)
    assert float(algorithm.entropy_bonus(state, obs, KEY)) == pytest.approx(expected, rel=1e-3)


# --- acting ---


def rollout_of(reward, terminated, truncated):
    steps, slots = reward.shape
    obs = np.zeros((steps, slots, 3), np.float32)
    return Rollout(obs, np.zeros((steps, slots, 2), np.float32), reward, terminated, truncated, obs, ())


def test_each_slot_has_its_own_sum_which_both_kinds_of_end_reset():
    algorithm = made(num_envs=3)
    state = begin(algorithm, 0)
    reward = np.array([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]])
    terminated, truncated = np.zeros((2, 3), bool), np.zeros((2, 3), bool)
    terminated[0, 0] = truncated[0, 1] = True
    after = jax.jit(algorithm.observe)(state, rollout_of(reward, terminated, truncated))
    np.testing.assert_allclose(after.rewards.current, [2.0, 20.0, 290.0])
    assert float(after.rewards.largest) == pytest.approx(290.0)
    assert after.env_steps == 6 and after.rewards.moments.count == 6
    np.testing.assert_allclose(after.rewards.moments.mean, np.mean([1, 10, 100, 2, 20, 290]))


def acting(algorithm, env_steps=20):
    return state_of(algorithm)._replace(env_steps=jnp.int64(env_steps))


def test_an_action_is_tanh_of_the_mean_plus_the_held_noise_times_the_deviation():
    algorithm, obs = made(), jnp.asarray([0.3, -1.0, 2.0], jnp.float32)
    state = acting(algorithm)
    actor, carry = algorithm.actor(state), algorithm.begin(None, jnp.int32(0))
    mean, spread = np.split(run(state.policy, obs[None], state.policy_statistics)[0][0], 2)
    still, kept, _ = algorithm.act(actor, carry, obs, KEY, explore=False)
    np.testing.assert_allclose(still, np.tanh(mean), atol=1e-5)
    assert kept == carry
    action, held, _ = algorithm.act(actor, carry, obs, KEY, explore=True)
    std = np.exp(-10 + 6 * (1 + np.tanh(spread)))
    np.testing.assert_allclose(action, np.tanh(mean + std * np.asarray(held.value)), atol=1e-4)
    held = held._replace(left=jnp.int32(2))
    again, after, _ = algorithm.act(actor, held, obs, jax.random.key(9), explore=True)
    assert (again == action).all() and after.left == 1 and (after.value == held.value).all()


def test_actions_are_uniform_during_the_warm_up():
    algorithm = made()
    actor, carry = algorithm.actor(acting(algorithm, 19)), algorithm.begin(None, jnp.int32(0))
    keys = jax.random.split(jax.random.key(1), 5_000)
    act = jax.jit(jax.vmap(lambda key: algorithm.act(actor, carry, jnp.ones(3), key, explore=True)[0]))
    actions = np.asarray(act(keys))
    assert actions.std() == pytest.approx(1 / np.sqrt(3), rel=0.03) and abs(actions.mean()) < 0.03
    assert np.abs(actions).max() <= 1


class Clock:
    """Task of four steps that earns nothing."""

    spec = SPEC

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jnp.zeros(3)

    def step(self, state, action, key):
        nothing, seen = jnp.zeros((), bool), jnp.zeros(3)
        return state + 1, Step(seen, jnp.zeros(()), nothing, state + 1 >= 4, seen, {"failed": nothing})


def test_what_is_held_ends_with_the_episode():
    """Noise that would be held for long is the slot's own until step 4, and then there is none."""
    algorithm = made(num_envs=3)
    actor = algorithm.actor(acting(algorithm))
    collector = make_collector(algorithm, Clock(), 7, 3, 6)
    start = collector.start(actor)
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    slots = start._replace(carry=start.carry._replace(value=noise, left=jnp.full(3, 100, jnp.int32)))
    found = collector.collect(actor, slots, 0)
    action = np.asarray(found.rollout.action)
    assert (action[:4] == action[0]).all() and (action[0, 0] != action[0, 1]).any()
    assert (action[4] != action[0]).all()
    assert np.asarray(found.slots.carry.left).max() < 16


# --- the policy as a file ---


@pytest.mark.parametrize("settings", [{}, {"batch_norm": False, "joint_pass": False, "normalise_observations": True}])
def test_the_policy_file_does_what_the_policy_does_without_noise(settings):
    algorithm = made(**settings)
    state = acting(algorithm)
    rng = np.random.default_rng(0)
    rollout = rollout_of(np.zeros((50, 1)), np.zeros((50, 1), bool), np.zeros((50, 1), bool))
    state = jax.jit(algorithm.observe)(state, rollout._replace(obs=rng.normal(1, 3, (50, 1, 3)).astype(np.float32)))
    actor = algorithm.actor(state)
    policy = Policy(algorithm.policy_layers(actor), observation=SPEC.observation, action=SPEC.action, task="test")
    carry, obs = algorithm.begin(actor, jnp.int32(0)), rng.normal(0, 3, (20, 3)).astype(np.float32)
    act = jax.jit(jax.vmap(lambda one: algorithm.act(actor, carry, one, KEY, explore=False)[0]))
    found = policy.predict(obs)[0]
    np.testing.assert_allclose(found, np.asarray(act(obs)) * [1.0, 2.0], atol=1e-5)
    assert found.std(0).min() > 0.05


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_norm": False}, "SACN.joint_pass has no effect without batch_norm, .*: turn off both"),
        ({"batch_norm": False, "joint_pass": False, "norm_momentum": 0.9}, "SACN.norm_momentum has no effect without"),
        ({"joint_pass": False, "stop_successor_gradient": True}, "SACN.stop_successor_gradient has no effect without"),
        ({"target_network": False, "target_rate": 0.1}, "SACN.target_rate has no effect without target_network"),
        ({"categorical": False}, "SACN.num_atoms has no effect without categorical"),
        ({"learn_temperature": False, "target_entropy": -1.0}, "SACN.target_entropy has no effect without"),
        (
            {"anneal_learning_rate": False, "final_learning_rate_share": 0.1},
            "SACN.final_learning_rate_share has no eff",
        ),
        ({"reward_scale": 0.1}, "SACN.reward_scale adds nothing to scale_rewards, which is on"),
        ({"normalise_observations": True}, "SACN.normalise_observations adds nothing to batch_norm, which is on"),
        ({"norm_momentum": 1.5}, r"SACN.norm_momentum must be in \[0, 1\]: got 1.5"),
        ({"final_learning_rate_share": -0.5}, r"SACN.final_learning_rate_share must be in \[0, 1\]: got -0.5"),
        ({"num_atoms": 1}, "SACN.num_atoms must be at least 2: got 1"),
        ({"batch_size": 1}, "SACN.batch_size must be at least 2 with batch_norm: got 1"),
        ({"hold_noise": 0}, "SACN.hold_noise must be a finite number above 0: got 0"),
        ({"policy_every": 0}, "SACN.policy_every must be a finite number above 0: got 0"),
        ({"value_limit": 0.0}, "SACN.value_limit must be a finite number above 0: got 0.0"),
        ({"temperature": 0.0}, "SACN.temperature must be a finite number above 0: got 0.0"),
        ({"target_entropy": 1.4}, "SACN.target_entropy must be below 1.386 nats"),
    ],
)
def test_settings_out_of_range_or_without_effect_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        made(**settings)
