"""The autoencoder of actions: its losses against closed forms and loops, and that it learns two modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms.replay_learner import ADAM, adam_step
from workhorse.networks.vae import ActionVAE

KEY = jax.random.key(3)


def made(hidden=(8,)):
    return ActionVAE.create(jax.random.key(0), 3, 2, hidden)


def test_the_losses_are_those_of_the_definition():
    model, rng = made(), np.random.default_rng(0)
    obs, action = (
        jnp.asarray(rng.normal(size=(7, 3)), jnp.float32),
        jnp.asarray(rng.uniform(-1, 1, (7, 2)), jnp.float32),
    )
    error, divergence = model.losses(obs, action, KEY)
    mean, log_std = (np.asarray(part, float) for part in model.encoded(obs, action))
    assert mean.shape == (7, 4) and model.num_latents == 4
    noise, total, squares = np.asarray(jax.random.normal(KEY, (7, 4), jnp.float32), float), 0.0, []
    for m, log_d in zip(mean.ravel(), log_std.ravel(), strict=True):
        # KL of N(m, d^2) from N(0, 1), by quadrature
        grid = m + np.exp(log_d) * np.linspace(-9, 9, 20_001)
        log_p, log_q = -0.5 * ((grid - m) / np.exp(log_d)) ** 2 - log_d, -0.5 * grid**2
        density = np.exp(log_p) / np.sqrt(2 * np.pi)
        total += np.sum(density * (log_p - log_q)) * (grid[1] - grid[0]) / mean.size
    for row in range(7):
        latent = mean[row] + np.exp(log_std[row]) * noise[row]
        x = np.concatenate([np.asarray(obs[row], float), latent])
        first, last = zip(model.decoder.weights, model.decoder.biases, strict=True)
        hidden = np.maximum(np.asarray(first[0], float) @ x + np.asarray(first[1], float), 0)
        found = np.tanh(np.asarray(last[0], float) @ hidden + np.asarray(last[1], float))
        squares += list((found - np.asarray(action[row], float)) ** 2)
    assert float(error) == pytest.approx(np.mean(squares), rel=1e-4)
    assert float(divergence) == pytest.approx(total, rel=1e-4)


def test_spreads_are_clipped():
    model = made()
    for bias, bound in ((-100.0, -4.0), (100.0, 15.0)):
        far = jax.tree.map(lambda leaf, b=bias: jnp.full_like(leaf, b), model.encoder.biases[-1])
        moved = ActionVAE(
            model.encoder.__class__(model.encoder.weights, (*model.encoder.biases[:-1], far), "relu"), model.decoder
        )
        assert (moved.encoded(jnp.ones((2, 3)), jnp.ones((2, 2)))[1] == bound).all()


def test_it_learns_two_modes_between_which_nothing_is_done():
    """A network of one output would propose the middle, which the log never does."""
    rng = np.random.default_rng(0)
    obs = jnp.zeros((256, 3), jnp.float32)
    action = jnp.asarray(np.where(rng.random((256, 1)) < 0.5, 0.6, -0.6) * np.ones((1, 2)), jnp.float32)

    def step(carry, key):
        model, memory = carry

        def loss(model):
            error, divergence = model.losses(obs, action, key)
            return error + 0.02 * divergence

        model, memory = adam_step(model, jax.grad(loss)(model), memory, 3e-3)
        return (model, memory), None

    begun, keys = made((32,)), jax.random.split(KEY, 1000)
    (model, _), _ = jax.jit(lambda keys: jax.lax.scan(step, (begun, ADAM.init(begun)), keys))(keys)
    drawn = np.asarray(jnp.tanh(model.decoded(obs, jax.random.normal(KEY, (256, 4), jnp.float32))))
    assert (np.abs(drawn) > 0.3).mean() > 0.75
    assert 0.3 < (drawn[:, 0] > 0).mean() < 0.7
