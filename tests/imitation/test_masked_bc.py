"""`masked-bc`: its loss against plain loops, masks that hide, the artefact, and the same fit by the loop of a log."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.algorithms.imitation.masked_bc import MaskedBC, factor_sizes
from workhorse.core.errors import UsageError
from workhorse.core.layers import Dense
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import write_log_folder
from workhorse.runs.policy import Policy
from workhorse.training.masked_policies import MaskedPolicies, fitted, split_rows
from workhorse.training.offline import OfflineLoop, as_transitions, held_out_episodes
from workhorse.training.plan import Plan
from workhorse.training.sources import Sources

SMALL = {"hidden": (8, 8), "batch_size": 16}


def log_of(action_space: Any, seed: int = 0, episodes: int = 12) -> Dataset:
    """Component 0 tells the action, component 1 is noise, component 2 is a constant."""
    rng = np.random.default_rng(seed)
    count = 10 * episodes
    obs = np.stack([rng.standard_normal(count) * 3 + 1, rng.standard_normal(count), np.ones(count)], axis=1)
    if isinstance(action_space, Discrete):
        action = (obs[:, 0] > 1).astype(np.int64)
    else:
        action = np.stack([4 + np.tanh(obs[:, 0]), -np.tanh(obs[:, 0])], axis=1)
    ends = np.arange(count) % 10 == 9
    return Dataset.of(
        "probe", Box.unbounded(3), action_space, task="probe", obs=obs, action=action, reward=np.ones(count),
        terminated=ends, truncated=np.zeros(count, bool), final_obs=obs[ends], begins=np.arange(0, count, 10),
    )  # fmt: skip


SPACES = [Discrete(2), Box((3.0, -1.0), (5.0, 1.0))]
IDS = ["discrete", "box"]


def algorithm_for(log: Dataset, **settings: Any) -> MaskedBC:
    found = registry.make("masked-bc", log.spec(), {**SMALL, **settings})
    assert isinstance(found, MaskedBC)
    return found


def fit(log: Dataset, updates: int, seed: int = 0, **settings: Any) -> MaskedPolicies:
    algorithm = algorithm_for(log, **settings)
    return fitted(algorithm, *split_rows(algorithm, log, np.array([0, 3])), updates, seed)


def run(layers: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    for place, (weight, bias) in enumerate(layers):
        x = weight @ x + bias
        x = np.maximum(x, 0) if place < len(layers) - 1 else x
    return x


@pytest.mark.parametrize("space", SPACES, ids=IDS)
def test_the_loss_is_that_of_a_plain_loop_over_samples(space: Any) -> None:
    """Input (x * G, G) written out for each sample, with the masks that the same key draws."""
    log = log_of(space)
    algorithm = algorithm_for(log, factors=(2, 1))
    rows = log.rows(np.arange(16), n_steps=1, discount=0.99, spec=algorithm.spec)
    policies = fit(log, 3, factors=(2, 1))
    state, key = policies.state, jax.random.key(7)
    _, each, metrics = algorithm.learn(state, as_transitions(jax.tree.map(jnp.asarray, rows), 120), key)
    mean, inverse = (np.asarray(part) for part in algorithm.scaling(state.observations))
    masks = np.asarray(jax.random.bernoulli(key, jnp.float32(0.5), (16, 2)))
    layers = [(np.asarray(w), np.asarray(b)) for w, b in zip(state.network.weights, state.network.biases, strict=True)]
    for row in range(16):
        z = (rows.obs[row] - mean) * inverse
        g = [float(masks[row, 0]), float(masks[row, 1])]
        output = run(layers, np.array([z[0] * g[0], z[1] * g[0], z[2] * g[1], *g]))
        if isinstance(space, Discrete):
            wanted = np.log(np.exp(output).sum()) - output[rows.action[row]]
        else:
            wanted = np.square(np.tanh(output) - rows.action[row]).mean()
        assert float(each[row]) == pytest.approx(wanted, rel=2e-4, abs=1e-6)
    assert float(metrics["masked_loss"]) == pytest.approx(float(np.mean(each)), rel=1e-5)


@pytest.mark.parametrize("space", SPACES, ids=IDS)
def test_what_is_masked_changes_nothing_and_what_is_seen_does(space: Any) -> None:
    policies = fit(log_of(space), 200)
    obs = np.random.default_rng(1).standard_normal((40, 3)) * 3 + 1
    other = obs.copy()
    other[:, 0] = -other[:, 0]
    masks = {
        name: np.tile(np.array(mask, np.float32), (40, 1))
        for name, mask in (("hidden", [0, 1, 1]), ("seen", [1, 1, 1]))
    }
    np.testing.assert_array_equal(policies.act(obs, masks["hidden"]), policies.act(other, masks["hidden"]))
    assert (policies.act(obs, masks["seen"]) != policies.act(other, masks["seen"])).any()


@pytest.mark.parametrize("space", SPACES, ids=IDS)
def test_one_network_holds_the_policies_of_all_masks(space: Any) -> None:
    """The cause is learnt wherever it is seen, and the mean where it is not."""
    policies = fit(log_of(space), 1500)
    losses = dict(zip(map(tuple, policies.masks.astype(int)), policies.losses(policies.masks), strict=True))
    blind = losses[0, 0, 0]
    for mask, loss in losses.items():
        assert loss < 0.35 * blind if mask[0] else loss > 0.7 * blind
    assert policies.agreements(np.ones((1, 3)))[0] > policies.agreements(np.zeros((1, 3)))[0]


@pytest.mark.parametrize("space", SPACES, ids=IDS)
@pytest.mark.parametrize("mask", [(1, 0, 1), (0, 1, 0), (0, 0, 0)])
def test_the_artefact_is_the_policy_of_the_mask(space: Any, mask: tuple[int, ...], tmp_path: Any) -> None:
    """Folded weights, saved and loaded, run by NumPy alone; with no more layers or inputs than an ordinary policy."""
    policies = fit(log_of(space), 100)
    spec = policies.algorithm.spec
    layers = policies.layers(np.array(mask))
    made = Policy(layers, observation=spec.observation, action=spec.task_action, task="probe")
    loaded = Policy.load(made.save(tmp_path / "policy"))
    obs = np.random.default_rng(2).standard_normal((60, 3)) * 3
    told = policies.act(obs, np.tile(np.array(mask, np.float32), (60, 1)))
    np.testing.assert_allclose(loaded.choose(obs)[0].reshape(told.shape), told, rtol=1e-4, atol=1e-5)
    assert next(layer.weight.shape for layer in layers if isinstance(layer, Dense)) == (8, 3)


def test_the_option_mask_bounds_what_is_trained_on_and_acts() -> None:
    """With it, a network cannot learn from a hidden cause; and the actor and its artefact keep to it."""
    log = log_of(Discrete(2))
    hidden = fit(log, 600, mask=(0, 1, 1), seen_share=1.0)
    seen = fit(log, 600, mask=(1, 0, 0), seen_share=1.0)
    blind = float(hidden.losses(np.array([[0, 0, 0]]))[0])
    assert hidden.losses(np.array([[1, 1, 1]]))[0] > 0.7 * blind
    assert seen.losses(np.array([[1, 0, 0]]))[0] < 0.4 * blind
    np.testing.assert_array_equal(seen.algorithm.actor(seen.state).mask, [1, 0, 0])
    weights = np.asarray(seen.algorithm.policy_layers(seen.algorithm.actor(seen.state))[1].weight)  # type: ignore[union-attr]
    assert (weights[:, 1:] == 0).all() and (weights[:, 0] != 0).any()


def test_a_fit_is_what_the_loop_of_a_log_trains(tmp_path: Any) -> None:
    log = log_of(Discrete(2), episodes=40)
    path = write_log_folder(log, tmp_path / "log")
    sources = Sources("offline", str(path), log.digest(), evaluate=False, held_out=0.1, updates_per_iteration=20)
    plan = Plan("probe", {}, "masked-bc", dict(SMALL), 4, sources=sources)
    loop = OfflineLoop.on_this_machine(plan, plan.make_algorithm(plan.spec()), 1)
    progress = loop.start()
    for _ in range(2):
        progress, metrics, _ = loop.iterate(progress)
    algorithm = algorithm_for(log)
    held_out = held_out_episodes(4, log.num_episodes, 0.1)
    wanted = fitted(algorithm, *split_rows(algorithm, log, held_out), 40, 4).state
    assert np.isfinite(metrics["masked_loss"])
    for ours, its in zip(jax.tree.leaves(wanted.average), jax.tree.leaves(progress.state.average), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-5, atol=1e-7)


def test_the_average_follows_the_weights_by_the_target_rate() -> None:
    log = log_of(Discrete(2))
    algorithm = algorithm_for(log, target_rate=0.25)
    state = algorithm.init(draw(root_key(0), "init"))
    rows = log.rows(np.arange(16), n_steps=1, discount=0.99, spec=algorithm.spec)
    after, _, _ = algorithm.learn(state, as_transitions(jax.tree.map(jnp.asarray, rows), 120), jax.random.key(0))
    before, fresh, average = (np.asarray(one.weights[0]) for one in (state.average, after.network, after.average))
    np.testing.assert_allclose(average, 0.75 * before + 0.25 * fresh, rtol=1e-5, atol=1e-7)
    assert (fresh != before).any()


def test_components_become_factors() -> None:
    task = EnvSpec("probe", Box.unbounded(11), Box((-1.0,) * 3, (1.0,) * 3), 10)
    assert factor_sizes(task) == (3, 3, 3, 2)
    shown = replace(task, observation=Box.unbounded(14), options=(("previous_action", True),))
    assert factor_sizes(shown) == (3, 3, 3, 2, 3)
    assert factor_sizes(replace(task, observation=Box.unbounded(8))) == (1,) * 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factors": (1, 1)}, "factors must be sizes of at least 1 that add up to the 3 components"),
        ({"factors": (3, 0)}, r"factors must be sizes.*got \(3, 0\)"),
        ({"mask": (1, 1)}, "mask must have a 1 or a 0 for each of the 3 factors"),
        ({"mask": (1, 1, 2)}, r"mask must have a 1 or a 0.*got \(1, 1, 2\)"),
        ({"seen_share": 0.0}, r"seen_share must be in \(0, 1\]: got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        algorithm_for(log_of(Discrete(2)), **settings)


def test_several_choices_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match=r"MaskedBC needs continuous actions or one of.*several choices"):
        registry.make("masked-bc", EnvSpec("probe", Box.unbounded(3), MultiBinary(2), 10), {})
