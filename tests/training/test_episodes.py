"""Chunks of episodes: what comes back is what a plain loop over one environment gives, and slots do not interfere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry as algorithms
from workhorse.core.addresses import host_keys
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Moments
from workhorse.environments import registry as environments
from workhorse.training.episodes import Episodes, Work, evaluation_of, evaluation_work, make_player
from workhorse.training.evolve import Evolve, chunk_size
from workhorse.training.lanes import Lanes
from workhorse.training.population import PopulationPrograms
from workhorse.training.workforce import Local, training_work

HOPPER = {"max_episode_steps": 60}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """MuJoCo logs broken simulations into the working folder."""
    monkeypatch.chdir(tmp_path)


class Watched:
    """A host environment that counts the steps of every slot, and may spoil or scale what it passes on."""

    def __init__(self, env, spoil=None, factor=1.0):
        self._env, self._spoil, self._factor = env, spoil, factor
        self.stepped = np.zeros(env.num_slots, int)

    def __getattr__(self, name):
        return getattr(self._env, name)

    def step(self, actions, slots=None, reset_keys=None):
        rows = np.arange(self._env.num_slots) if slots is None else slots
        self.stepped[rows] += 1
        if self._spoil is not None and self._spoil in rows and self.stepped[self._spoil] == 5:
            actions = np.array(actions)
            actions[np.flatnonzero(rows == self._spoil)] = np.nan
        step = self._env.step(actions, slots, reset_keys)
        return step._replace(reward=step.reward * self._factor)


def hopper(num_slots, threads=1):
    return environments.make("Hopper-v5", num_slots, threads, **HOPPER)


def es(spec, **settings):
    return algorithms.make("openai-es", spec, {"num_pairs": 4, "noise_std": 0.3} | settings)


def work(episodes, limit=None, explore=True, members=None):
    episodes = np.asarray(episodes, np.int32)
    return Work("reset", 0, episodes if members is None else np.asarray(members, np.int32), episodes, limit, explore)


def played(player, actor, *works):
    found = dict(player.play(actor, enumerate(works)))
    return found[0] if len(works) == 1 else [found[number] for number in range(len(works))]


def evolve(algorithm, *players):
    programs = PopulationPrograms(algorithm, 0)
    return Evolve(programs, Local(programs, Lanes(list(players))))


@pytest.fixture(scope="module")
def chunk():
    env = Watched(hopper(8))
    algorithm = es(env.spec)
    player = make_player(algorithm, env, env.num_slots, 0)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    found = played(player, actor, work(range(8)))
    return env, algorithm, player, actor, found


def test_returns_are_those_of_a_plain_loop(chunk):
    _, algorithm, _, actor, found = chunk
    env = hopper(1)
    for member in (0, 5):
        network = algorithm.begin(actor, jnp.asarray(member))
        obs, total, length, ended = env.reset(host_keys(0, "reset", 0, np.array([member]))), 0.0, 0, False
        while not ended:
            action, _, _ = algorithm.act(actor, network, jnp.asarray(obs[0]), jax.random.key(0), explore=True)
            step = env.step(np.asarray(action)[None])
            obs, total, length = step.next_obs, total + step.reward[0], length + 1
            ended = step.terminated[0] or step.truncated[0]
        assert length == found.length[member]
        np.testing.assert_allclose(total, found.returns[member], rtol=1e-3)


def test_a_finished_slot_is_not_stepped(chunk):
    env, _, _, _, found = chunk
    assert len(set(found.length)) > 1, "this test needs episodes of different lengths"
    np.testing.assert_array_equal(env.stepped, found.length)


def test_the_same_chunk_has_the_same_bits_again_and_on_more_threads(chunk):
    _, algorithm, player, actor, found = chunk
    again = played(player, actor, work(range(8)))
    threaded = played(make_player(algorithm, hopper(8, threads=2), 8, 0), actor, work(range(8)))
    for other in (again, threaded):
        jax.tree.map(np.testing.assert_array_equal, other[:3], found[:3])


def test_slots_may_be_permuted(chunk):
    _, _, player, actor, found = chunk
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    permuted = played(player, actor, work(order))
    np.testing.assert_array_equal(permuted.returns, found.returns[order])


def test_idle_slots_do_nothing(chunk):
    _, _, player, actor, found = chunk
    some = played(player, actor, work([0, -1, 2, -1, -1, 5, -1, -1], members=[0, -1, 2, -1, -1, 5, -1, -1]))
    np.testing.assert_array_equal(some.length[[1, 3, 4, 6, 7]], 0)
    np.testing.assert_array_equal(some.returns[[0, 2, 5]], found.returns[[0, 2, 5]])
    assert some.observations.count == some.length.sum()


def test_the_limit_cuts_episodes(chunk):
    _, _, player, actor, found = chunk
    cut = played(player, actor, work(range(8), limit=9))
    np.testing.assert_array_equal(cut.length, np.minimum(found.length, 9))


def test_a_broken_simulation_ends_its_episode_is_named_and_hurts_no_other(chunk):
    _, algorithm, _, actor, found = chunk
    spoilt = played(make_player(algorithm, Watched(hopper(8), spoil=3), 8, 0), actor, work(range(8)))
    assert spoilt.length[3] == 5 and np.isfinite(spoilt.returns).all()
    (sentence,) = spoilt.failures
    assert sentence.startswith("member 3, episode 3 of iteration 0, step 5: an action was NaN")
    others = np.arange(8) != 3
    np.testing.assert_array_equal(spoilt.returns[others], found.returns[others])
    np.testing.assert_array_equal(spoilt.length[others], found.length[others])


def test_observation_moments_are_those_of_everything_acted_on():
    env = environments.make("CartPole-v1", max_episode_steps=20)
    algorithm = es(env.spec)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    found = played(make_player(algorithm, env, 8, 0), actor, work(range(8)))
    seen, lengths, totals = [], [], []
    for member in range(8):
        network = algorithm.begin(actor, jnp.asarray(member))
        state, obs = env.reset(jax.random.fold_in(draw(root_key(0), "reset", 0), member))
        ended, total, length = False, 0.0, 0
        while not ended:
            seen.append(np.asarray(obs))
            action, _, _ = algorithm.act(actor, network, obs, jax.random.key(0), explore=True)
            state, step = env.step(state, action, jax.random.key(0))
            obs, total, length = step.next_obs, total + float(step.reward), length + 1
            ended = bool(step.terminated | step.truncated)
        lengths.append(length)
        totals.append(total)
    assert found.length.tolist() == lengths and found.returns.tolist() == totals
    np.testing.assert_allclose(found.observations.mean, np.mean(seen, 0), atol=1e-6)
    np.testing.assert_allclose(found.observations.deviation, np.var(seen, 0) * len(seen), rtol=1e-4)


def test_a_population_larger_than_a_chunk_is_evaluated_whole():
    env = environments.make("CartPole-v1", max_episode_steps=20)
    algorithm = es(env.spec, num_pairs=5, episodes_per_member=2)
    loop = evolve(algorithm, make_player(algorithm, env, 8, 0))
    works = [training_work(algorithm, 0, 8, chunk, None, range(20)) for chunk in range(3)]
    assert [w.episodes.tolist() for w in works] == [[*range(8)], [*range(8, 16)], [16, 17, 18, 19, -1, -1, -1, -1]]
    assert works[1].members.tolist() == [4, 4, 5, 5, 6, 6, 7, 7]
    after, metrics, _ = loop.iterate(loop.start())
    assert metrics["steps"] == after.env_steps == after.state.observations.count


def test_a_factor_on_the_reward_changes_no_bit_of_training():
    parameters = []
    for factor in (1.0, 3.7):
        env = Watched(hopper(8), factor=factor)
        algorithm = es(env.spec)
        loop = evolve(algorithm, make_player(algorithm, env, env.num_slots, 0))
        progress = loop.start()
        for _ in range(3):
            progress, _, _ = loop.iterate(progress)
        parameters.append(progress.state.params)
    np.testing.assert_array_equal(*parameters)
    assert np.abs(parameters[0]).max() > 0


def test_an_evaluation_repeats_and_leaves_training_alone():
    env = hopper(8)
    algorithm = es(env.spec, action_noise=0.5, alive_bonus=1.0)
    loop = evolve(algorithm, make_player(algorithm, env, env.num_slots, 0))
    straight, interrupted = loop.start(), loop.start()
    for _ in range(2):
        straight, _, _ = loop.iterate(straight)
        interrupted, _, _ = loop.iterate(interrupted)
        first, second = (loop.evaluate(interrupted, 11) for _ in range(2))
        np.testing.assert_array_equal(first.returns, second.returns)
    assert len(first.returns) == 11 and len(set(first.returns)) > 1
    np.testing.assert_array_equal(straight.state.params, interrupted.state.params)


@pytest.mark.parametrize("policy", ["linear", "mlp"])
@pytest.mark.parametrize(("size", "actions"), [(17, 6), (11, 3), (348, 17)])
def test_a_row_has_the_same_bits_in_programs_of_every_width(policy, size, actions):
    spec = EnvSpec("test", Box.unbounded(size), Box((-1.0,) * actions, (1.0,) * actions), 10)
    algorithm = es(spec, policy=policy)
    actor = algorithm.actor(algorithm.init(jax.random.key(0)))
    carry = jax.vmap(lambda member: algorithm.begin(actor, member))(jnp.arange(32))
    obs = jax.random.normal(jax.random.key(1), (32, size), jnp.float32)
    act = jax.jit(jax.vmap(lambda c, o: algorithm.act(actor, c, o, jax.random.key(0), explore=True)[0]))
    whole = np.asarray(act(carry, obs))
    for width in (16, 8, 3, 2, 1):
        rows = np.random.default_rng(width).permutation(32)[:width]
        np.testing.assert_array_equal(act(jax.tree.map(lambda leaf, r=rows: leaf[r], carry), obs[rows]), whole[rows])


def test_two_lanes_give_the_bits_of_one():
    parameters = []
    for lanes in (1, 2):
        players = []
        for _ in range(lanes):
            env = hopper(3)
            algorithm = es(env.spec)
            players.append(make_player(algorithm, env, env.num_slots, 0))
        together = Lanes(players)
        programs = PopulationPrograms(algorithm, 0)
        loop = Evolve(programs, Local(programs, together))
        progress = loop.start()
        for _ in range(3):
            progress, _, _ = loop.iterate(progress)
        parameters.append(progress.state)
        together.close()
    jax.tree.map(np.testing.assert_array_equal, parameters[0].params, parameters[1].params)
    jax.tree.map(np.testing.assert_array_equal, parameters[0].observations, parameters[1].observations)


def test_a_failure_in_one_lane_stops_the_other_and_is_raised():
    class Failing(Watched):
        def step(self, *given):
            raise ZeroDivisionError("planted")

    env, failing = hopper(4), Failing(hopper(4))
    algorithm = es(env.spec)
    lanes = Lanes(
        [make_player(algorithm, failing, failing.num_slots, 0), make_player(algorithm, env, env.num_slots, 0)]
    )
    programs = PopulationPrograms(algorithm, 0)
    loop = Evolve(programs, Local(programs, lanes))
    with pytest.raises(ZeroDivisionError, match="planted"):
        loop.iterate(loop.start())
    lanes.close()


def test_evaluation_chunks_hold_every_episode_once():
    works = [evaluation_work(3, 11, 8, chunk) for chunk in range(2)]
    assert [w.episodes.tolist() for w in works] == [[*range(8)], [8, 9, 10, -1, -1, -1, -1, -1]]


def test_population_metrics_are_those_of_all_episodes():
    env = hopper(3)
    algorithm = es(env.spec)
    player = make_player(algorithm, env, env.num_slots, 0)
    loop = evolve(algorithm, player)
    start = loop.start()
    works = [training_work(algorithm, 0, 3, chunk, None, range(algorithm.num_members)) for chunk in range(3)]
    found = played(player, algorithm.actor(start.state), *works)
    returns = np.concatenate([chunk.returns for chunk in found])[:8]
    _, metrics, _ = loop.iterate(start)
    expected = {"": returns.mean(), "_std": returns.std(), "_max": returns.max(), "_min": returns.min()}
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[f"training_return{name}"], value, rtol=1e-12)
    assert metrics["steps"] == sum(chunk.length.sum() for chunk in found)


def test_chunks_are_few_equal_and_even_in_number():
    assert [chunk_size(count) for count in (1, 2, 16, 64, 65, 120, 130, 4096)] == [1, 1, 8, 32, 33, 60, 33, 64]


@pytest.mark.parametrize("asked", [3, 5, 6])
def test_an_evaluation_answered_with_another_number_of_episodes_is_an_error(asked):
    seen = Moments(np.float64(4), np.zeros(1), np.zeros(1))
    chunks = [
        Episodes(np.ones(3), np.full(3, 7, np.int32), seen, ()),
        Episodes(np.array([1.0, 0.0, 0.0]), np.array([7, 0, 0], np.int32), seen, ()),
    ]
    assert len(evaluation_of(chunks, 4).returns) == 4
    with pytest.raises(RuntimeError, match=f"An evaluation of {asked} episodes was answered with 4"):
        evaluation_of(chunks, asked)
