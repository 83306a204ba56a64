"""Cal-QL: the bound of values by the log's returns, its limits, and that it leaves values as high as returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.algorithms.offline.plain import (
    BANDIT,
    CLOSE,
    KEY,
    LEARNING,
    bandit_log,
    batch_of,
    begin,
    learn,
    made,
    trained,
    value_of,
)
from workhorse.algorithms import registry


def both(**settings):
    return made("cal-ql", **settings), made("cql", **settings)


def test_the_penalty_reads_values_of_the_policy_no_lower_than_returns():
    algorithm, batch = made("cal-ql", num_actions=4, reward_scale=0.5, penalty_rows=4), batch_of()
    state, rows = begin(algorithm, 0), slice(None, None, 3)
    sampled = algorithm.sampled(state, batch.obs[rows], batch.next_obs[rows], jax.random.fold_in(KEY, 2))
    gaps, bound, raised = [], 0.5 * batch.return_to_go[rows], 0
    for critic in state.critics:
        for n in range(4):
            total = 0.0
            for m in range(12):
                value = value_of(critic, batch.obs[rows][n], np.asarray(sampled.action[n, m]))
                raised += m >= 4 and value < bound[n]
                value = max(value, bound[n]) if m >= 4 else value
                total += np.exp(value - float(sampled.log_density[n, m])) / 12
            gaps.append(np.log(total) - value_of(critic, batch.obs[rows][n], batch.action[rows][n]))
    assert 0 < raised < 64
    _, _, metrics = learn(algorithm, state, batch, KEY)
    np.testing.assert_allclose(metrics["conservative_gap"], np.mean(gaps), **CLOSE)


def test_where_no_return_is_known_it_is_cql():
    algorithm, plain = both()
    state, batch = begin(algorithm, 0), batch_of()
    unknown = batch._replace(return_to_go=np.full(12, -np.inf, np.float32))
    found, expected = learn(algorithm, state, unknown, KEY), learn(plain, state, unknown, KEY)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    known = learn(algorithm, state, batch, KEY)[2]
    assert known["conservative_gap"] > expected[2]["conservative_gap"]


def test_a_value_below_the_return_is_pushed_down_no_further():
    algorithm, batch = made("cal-ql"), batch_of()
    state = begin(algorithm, 0)
    sampled = algorithm.sampled(state, batch.obs, batch.next_obs, KEY)
    value, known = jnp.zeros(sampled.log_density.shape), batch._replace(return_to_go=np.full(12, 5.0, np.float32))
    slope = jax.grad(lambda value: algorithm.gap(jnp.zeros(12), value, sampled, known))(value)
    assert (slope[:, sampled.is_policy] == 0).all() and (slope[:, ~sampled.is_policy] > 0).all()
    low = batch._replace(return_to_go=np.full(12, -5.0, np.float32))
    slope = jax.grad(lambda value: algorithm.gap(jnp.zeros(12), value, sampled, low))(value)
    assert (slope > 0).all()


@pytest.mark.slow
def test_values_of_the_policy_stay_at_the_size_of_returns():
    """Returns of 10, whatever is done: CQL goes below them on the policy's own actions, Cal-QL hardly does."""
    log = jax.tree.map(jnp.asarray, bandit_log())
    flat = log._replace(reward=jnp.full_like(log.reward, 10.0), return_to_go=jnp.full_like(log.reward, 10.0))
    settings = LEARNING | {"normalise_observations": False, "conservative_weight": 5.0, "num_actions": 4}
    found = {}
    for name in ("cql", "cal-ql"):
        algorithm = registry.make(name, BANDIT, settings)
        state, _ = trained(algorithm, flat, 1500)
        obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
        actor = algorithm.actor(state._replace(env_steps=jnp.int64(10**6)))
        action = jax.vmap(lambda obs, actor=actor, made=algorithm: made.act(actor, (), obs, KEY, explore=True)[0])(obs)
        found[name] = np.mean(
            [min(value_of(one, o, a) for one in state.critics) for o, a in zip(obs, action, strict=True)]
        )
    assert found["cal-ql"] > found["cql"] + 0.2, found
