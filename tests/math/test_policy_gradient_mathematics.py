"""Returns, distributions and trust regions against plain NumPy loops, with and without compilation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from workhorse.math.choices import NEVER, grouped
from workhorse.math.distributions import Bernoullis, Categorical, Categoricals, DiagonalGaussian
from workhorse.math.returns import discounted_sum, lambda_advantages, lambda_returns
from workhorse.math.trust_region import backtracking, conjugate_gradient

EITHER_WAY = pytest.mark.parametrize("compiled", [False, True])


def trajectory(seed, length=30, discount=0.9, trace=0.8):
    """Steps of several episodes in one slot: some terminated, some cut by the clock."""
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random(length) < 0.1, rng.random(length) < 0.1
    reward, value, next_value = rng.normal(size=(3, length))
    return {
        "reward": reward,
        "value": value,
        "next_value": next_value,
        "terminated": terminated,
        "truncated": truncated,
        "discount": discount * (1.0 - terminated),
        "trace": trace * (1.0 - (terminated | truncated)),
    }


def run(function, compiled, *arrays):
    arrays = [jnp.asarray(array) for array in arrays]
    return np.asarray((jax.jit(function) if compiled else function)(*arrays))


@EITHER_WAY
@pytest.mark.parametrize("seed", range(5))
def test_advantages_are_the_sums_they_are_defined_as(seed, compiled):
    t = trajectory(seed)
    found = run(lambda_advantages, compiled, t["reward"], t["discount"], t["value"], t["next_value"], t["trace"])
    for start in range(len(found)):
        total, weight = 0.0, 1.0
        for step in range(start, len(found)):
            after = 0.0 if t["terminated"][step] else t["next_value"][step]
            total += weight * (t["reward"][step] + 0.9 * after - t["value"][step])
            weight *= 0.9 * 0.8
            if t["terminated"][step] or t["truncated"][step]:
                break
        assert found[start] == pytest.approx(total, abs=1e-10)


@EITHER_WAY
def test_returns_with_a_full_trace_are_discounted_rewards_to_the_end_of_the_episode(compiled):
    t = trajectory(7, trace=1.0)
    found = run(lambda_returns, compiled, t["reward"], t["discount"], t["next_value"], t["trace"])
    for start in range(len(found)):
        total, weight = 0.0, 1.0
        for step in range(start, len(found)):
            total += weight * t["reward"][step]
            weight *= 0.9
            ended = t["terminated"][step] or t["truncated"][step]
            if ended:
                total += 0.0 if t["terminated"][step] else weight * t["next_value"][step]
                break
        assert found[start] == pytest.approx(total, abs=1e-10)


def test_returns_are_advantages_plus_values():
    t = trajectory(3)
    trace = t["trace"].copy()
    trace[-1] = 0.0  # the rollout's end is a seam
    # where an episode goes on, the successor's value is the value at the next step
    next_value = np.where(trace > 0, np.append(t["value"][1:], 0.0), t["next_value"])
    advantages = run(lambda_advantages, False, t["reward"], t["discount"], t["value"], next_value, trace)
    returns = run(lambda_returns, False, t["reward"], t["discount"], next_value, trace)
    np.testing.assert_allclose(returns, advantages + t["value"], atol=1e-10)


@EITHER_WAY
def test_the_sum_so_far_begins_again_after_an_episode(compiled):
    rng = np.random.default_rng(0)
    reward, ended = rng.normal(size=20), (rng.random(20) < 0.2).astype(float)
    last, found = (jax.jit(discounted_sum) if compiled else discounted_sum)(
        jnp.asarray(3.0), jnp.asarray(reward), 0.9, jnp.asarray(ended)
    )
    now = 3.0
    for step in range(20):
        now = 0.9 * now + reward[step]
        assert found[step] == pytest.approx(now, abs=1e-10)
        now *= 1 - ended[step]
    assert last == pytest.approx(now, abs=1e-10)


def test_gaussians_are_scipys():
    rng = np.random.default_rng(0)
    mean, log_std, other_mean, other_log_std, x = rng.normal(size=(5, 4))
    one = DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_std))
    other = DiagonalGaussian(jnp.asarray(other_mean), jnp.asarray(other_log_std))
    normal = stats.norm(mean, np.exp(log_std))
    assert float(one.log_prob(jnp.asarray(x))) == pytest.approx(normal.logpdf(x).sum())
    assert float(one.entropy()) == pytest.approx(normal.entropy().sum())
    drawn = normal.rvs((400_000, 4), random_state=1)
    apart = normal.logpdf(drawn).sum(1) - stats.norm(other_mean, np.exp(other_log_std)).logpdf(drawn).sum(1)
    assert float(one.kl(other)) == pytest.approx(apart.mean(), abs=4 * apart.std() / 400_000**0.5)
    samples = jax.vmap(one.sample)(jax.random.split(jax.random.key(0), 100_000))
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(samples.std(0), np.exp(log_std), rtol=0.02)


def test_choices_have_the_probabilities_of_their_scores():
    logits, other = jnp.array([0.3, -1.0, 2.0]), jnp.array([1.0, 0.0, 0.0])
    p = np.exp(logits) / np.exp(logits).sum()
    q = np.exp(other) / np.exp(other).sum()
    one = Categorical(logits)
    np.testing.assert_allclose([float(one.log_prob(jnp.asarray(a))) for a in range(3)], np.log(p), rtol=1e-6)
    assert float(one.entropy()) == pytest.approx(stats.entropy(p))
    assert float(one.kl(Categorical(other))) == pytest.approx(stats.entropy(p, q))
    drawn = jax.vmap(one.sample)(jax.random.split(jax.random.key(0), 50_000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 50_000, p, atol=0.01)
    assert int(one.mode()) == 2


def joint(one, actions):
    """Probabilities of every action there is, by enumeration."""
    return np.exp(jax.vmap(one.log_prob)(jnp.array(actions)))


def test_several_choices_are_the_product_of_each():
    rng, counts = np.random.default_rng(0), (2, 4, 3)
    scores, other = rng.normal(size=(2, 9))
    one, another = (Categoricals(grouped(jnp.asarray(given), counts)) for given in (scores, other))
    parts = [special.softmax(part) for part in np.split(scores, [2, 6])]
    actions = list(itertools.product(*map(range, counts)))
    p, q = joint(one, actions), joint(another, actions)
    expected = [np.prod([p[a] for p, a in zip(parts, action, strict=True)]) for action in actions]
    np.testing.assert_allclose(p, expected, rtol=1e-6)
    assert float(one.entropy()) == pytest.approx(stats.entropy(p))
    assert float(one.kl(another)) == pytest.approx(stats.entropy(p, q))
    assert tuple(one.mode().tolist()) == actions[p.argmax()]
    drawn = np.asarray(jax.vmap(one.sample)(jax.random.split(jax.random.key(0), 50_000)))
    found = np.bincount(np.ravel_multi_index(drawn.T, counts), minlength=24) / 50_000
    np.testing.assert_allclose(found, p, atol=0.01)


def test_switches_are_scipys():
    rng = np.random.default_rng(1)
    logits, other = rng.normal(size=(2, 4))
    one, another = Bernoullis(jnp.asarray(logits)), Bernoullis(jnp.asarray(other))
    on = special.expit(logits)
    actions = list(itertools.product((0, 1), repeat=4))
    p, q = joint(one, actions), joint(another, actions)
    np.testing.assert_allclose(p, np.exp([stats.bernoulli(on).logpmf(action).sum() for action in actions]), rtol=1e-6)
    assert float(one.entropy()) == pytest.approx(stats.bernoulli(on).entropy().sum())
    assert float(one.kl(another)) == pytest.approx(stats.entropy(p, q))
    assert tuple(one.mode().tolist()) == actions[p.argmax()]
    assert Bernoullis(jnp.zeros(1)).mode().tolist() == [0]
    drawn = np.asarray(jax.vmap(one.sample)(jax.random.split(jax.random.key(0), 50_000)))
    np.testing.assert_allclose(drawn.mean(0), on, atol=0.01)
    assert abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.02


@pytest.mark.parametrize("sharp", [1.0, 1e3])
def test_gradients_are_finite_where_choices_are_missing_or_certain(sharp):
    scores = sharp * jnp.array([0.3, -1.0, 2.0, 0.0, 1.0])

    def everything(kind, action, scores):
        one, other = kind(scores), kind(scores[::-1])
        return one.log_prob(action) + one.entropy() + one.kl(other)

    choices = lambda scores: Categoricals(grouped(scores, (2, 3)))  # noqa: E731
    for kind, action in ((choices, jnp.array([1, 0])), (Bernoullis, jnp.array([1, 0, 0, 1, 0]))):
        value, gradient = jax.value_and_grad(everything, argnums=2)(kind, action, scores)
        assert np.isfinite(value) and np.isfinite(gradient).all() and np.any(gradient != 0)


def test_scores_are_grouped_in_their_order():
    rows = grouped(jnp.arange(6.0), (1, 3, 2))
    assert rows.tolist() == [[0.0, NEVER, NEVER], [1.0, 2.0, 3.0], [4.0, 5.0, NEVER]]


@EITHER_WAY
def test_conjugate_gradient_solves_what_it_is_given(compiled):
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(12, 12))
    matrix, target = factor @ factor.T + 0.1 * np.eye(12), rng.normal(size=12)
    found = run(lambda b: conjugate_gradient(lambda v: jnp.asarray(matrix) @ v, b, 60), compiled, target)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, target), rtol=1e-5)
    rough = run(lambda b: conjugate_gradient(lambda v: jnp.asarray(matrix) @ v, b, 3), compiled, target)
    error = [np.linalg.norm(matrix @ x - target) for x in (found, rough)]
    assert error[0] < 1e-4 < error[1]
    assert not run(lambda b: conjugate_gradient(lambda v: v, b, 5), compiled, np.zeros(3)).any(), "nothing to solve"
    tiny = run(lambda b: conjugate_gradient(lambda v: jnp.asarray(matrix) @ v, b, 60), compiled, 1e-9 * target)
    np.testing.assert_allclose(tiny, 1e-9 * found, rtol=1e-5)


@EITHER_WAY
def test_conjugate_gradient_stops_at_a_direction_whose_curvature_is_not_positive(compiled):
    """Rounding, or a matrix that is estimated, may make one: what was found before it is kept."""
    for curvature, step in ((-1.0, 1.25), (-9.0, 0.0), (-10.0, 0.0)):
        diagonal, target = np.array([1.0, curvature]), np.array([3.0, 1.0])
        found = run(lambda b, m=diagonal: conjugate_gradient(lambda v: jnp.asarray(m) * v, b, 5), compiled, target)
        np.testing.assert_allclose(found, step * target, rtol=1e-6)


@EITHER_WAY
def test_a_step_that_is_never_accepted_is_not_taken(compiled):
    step = np.array([3.0, 4.0])

    def shortened(limit):
        return lambda s: backtracking(lambda v: jnp.linalg.norm(v) <= limit, s, 4)

    found, accepted, times = (jax.jit(shortened(1.3)) if compiled else shortened(1.3))(jnp.asarray(step))
    np.testing.assert_allclose(found, step / 4)
    assert accepted
    assert times == 2
    found, accepted, times = (jax.jit(shortened(0.1)) if compiled else shortened(0.1))(jnp.asarray(step))
    assert not found.any()
    assert not accepted
    assert times == 4
