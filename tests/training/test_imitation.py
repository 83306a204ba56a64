"""The loop of DAgger: who acts, who answers, what is counted, and that it mends what behaviour cloning cannot."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.cli.main import main
from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.core.layers import Argmax, Dense, Stretch
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.data.log_folder import write_log_folder
from workhorse.environments import registry as environments
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.runs import train
from workhorse.runs.experts import find_expert, make_run_loop
from workhorse.runs.folder import RunFolder
from workhorse.runs.metric_words import known_metrics
from workhorse.runs.policy import Policy
from workhorse.runs.schedule import Schedule
from workhorse.runs.trust import require_trusted_sources
from workhorse.training.episodes import make_player
from workhorse.training.expert_episodes import ExpertEpisodes, Noisy, demonstrated
from workhorse.training.experts import PolicyExpert
from workhorse.training.imitation import ImitationLoop
from workhorse.training.lanes import Lanes
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.sources import Sources

SMALL = {"hidden": (8,), "copy_updates": 4, "copy_batch_size": 8, "memory_size": 200, "num_envs": 2}
CLOCK = {"max_episode_steps": 9}
TASKS = {"a pure task": "Pendulum-v1", "a simulator": "Hopper-v5", "Gymnasium alone": "FrozenLake-v1"}


def expert_folder(path, task, seed=0):
    """A policy artefact of random weights for a task."""
    spec = environments.make(task, 1, 1, **CLOCK).spec
    rng, action = np.random.default_rng(seed), spec.task_action
    outputs = action.count if isinstance(action, Discrete) else action.size
    weight = rng.normal(size=(outputs, spec.observation.size)).astype(np.float32)
    head = Argmax() if isinstance(action, Discrete) else Stretch()
    given = {"observation": spec.observation, "action": action, "task": task}
    return Policy([Dense(weight), head], **given).save(path)


def plan_for(task, expert, **settings):
    found = find_expert(str(expert))
    sources = Sources("imitate", expert=found.name, expert_digest=found.digest)
    return Plan(task, CLOCK, "dagger", SMALL | settings, 3, sources=sources)


def opened(plan):
    loop = make_run_loop(plan, plan.spec(), 2)
    loop.prepare()
    assert isinstance(loop, ImitationLoop)
    return loop


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_expert_answers_where_the_copy_is_and_the_copy_acts(tmp_path, task):
    folder = expert_folder(tmp_path / "expert", task)
    loop = opened(plan_for(task, folder))
    progress, metrics, _ = loop.iterate(loop.start())
    assert metrics["expert_share"] == 1.0
    played = loop.play(loop.algorithm.actor(progress.state), 1)
    there, policy = played.is_there, Policy.load(folder)
    assert not played.by_expert.any()
    asked = policy.choose(played.obs[there])[0]
    np.testing.assert_allclose(played.answer[there], asked, atol=1e-5)
    assert (np.abs(played.answer[there] - played.action[there]) > 1e-3).any(), "the copy does something else"
    env = as_batch(environments.make(task, 2, 1, **CLOCK), 2)
    obs, slots = env.reset(episode_keys(env, 3, "reset", 1, np.arange(2))), np.arange(2)
    for time in range(len(played.obs)):
        slots = slots[there[time, slots]]
        if not len(slots):
            break
        np.testing.assert_allclose(played.obs[time, slots], obs[slots], rtol=1e-4, atol=1e-5)
        step = env.step(played.action[time, slots], slots)
        np.testing.assert_allclose(played.reward[time, slots], step.reward, rtol=1e-4, atol=1e-5)
        obs[slots] = step.next_obs
    np.testing.assert_allclose(played.final_obs, obs, rtol=1e-4, atol=1e-5)
    env.close()
    loop.close()


def test_queries_demonstrations_and_steps_are_counted_over_the_run(tmp_path):
    loop = opened(plan_for("Hopper-v5", expert_folder(tmp_path / "expert", "Hopper-v5"), share_decay=0.5))
    progress, total = loop.start(), 0
    for iteration in range(3):
        progress, metrics, failures = loop.iterate(progress)
        total += round(metrics["episode_length"] * 2)
        assert metrics["expert_queries"] == total == int(progress.env_steps) == int(progress.state.seen)
        assert metrics["demonstrations"] == 2 * (iteration + 1) and failures == ()
        assert metrics.keys() <= known_metrics().keys()
    assert int(progress.state.memory.is_there.sum()) == total
    loop.close()


def test_a_mixture_is_of_both_in_one_episode(tmp_path):
    plan = plan_for("Pendulum-v1", expert_folder(tmp_path / "expert", "Pendulum-v1"), share_decay=0.5)
    loop = opened(dataclasses.replace(plan, task_options={}))
    played = loop.play(loop.algorithm.actor(loop.start().state), 1)
    assert played.by_expert.shape == (200, 2)
    assert 0.4 < played.by_expert.mean() < 0.6 and (played.by_expert[:, 0] != played.by_expert[:, 1]).any()
    same = played.answer == played.action
    assert same[played.by_expert].all() and not same[~played.by_expert].all()
    loop.close()


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(tmp_path, task):
    import polars as pl

    plan = plan_for(task, expert_folder(tmp_path / "expert", task))
    given = {
        "task": task, "algorithm": "dagger", "settings": plan.settings, "task_options": CLOCK,
        "sources": plan.sources, "schedule": Schedule(final_episodes=1, milestones=0), "root": tmp_path,
    }  # fmt: skip
    whole, _ = train.start(**given, env_steps=50, id="whole", threads=2)
    part, _ = train.start(**given, env_steps=20, id="part", threads=2)
    part, _ = train.resume(part.path, env_steps=50, threads=1)
    one, other = (pl.read_parquet(folder.path / "metrics.parquet") for folder in (whole, part))
    assert one["digest"].to_list() == other["digest"].to_list() and len(set(one["digest"])) >= 3
    assert one["expert_queries"].to_list() == other["expert_queries"].to_list()


@pytest.mark.parametrize(("task", "expert"), [("Pendulum-v1", "mppi"), ("Hopper-v5", "predictive-sampling")])
@pytest.mark.slow
def test_a_planner_answers_where_the_copy_is_and_its_trials_are_steps(task, expert):
    plan = plan_for(task, expert)
    one, other = opened(plan), opened(plan)
    progress, metrics, _ = one.iterate(one.start())
    each = registry.make(expert, plan.spec(), {}).steps_per_action
    assert metrics["planning_steps_per_action"] == each
    assert metrics["steps"] == metrics["expert_queries"] * (1 + each) == int(progress.env_steps)
    after = [digest(loop.iterate(progress)[0].state) for loop in (one, other)]
    assert after[0] == after[1] != digest(progress.state)
    for loop in (one, other):
        loop.close()


def test_linear_control_answers_what_its_own_run_does():
    plan = plan_for("InvertedPendulum-v5", "lqr")
    loop = opened(plan)
    played = loop.play(loop.algorithm.actor(loop.start().state), 0)
    answer = played.answer[:, 0, 0] / 3  # the box is [-3, 3]
    gain = np.linalg.lstsq(played.obs[:, 0], answer, rcond=None)[0]
    np.testing.assert_allclose(played.obs[:, 0] @ gain, answer, atol=1e-4)
    assert played.length.tolist() == [9, 9] and gain[1] != 0
    loop.close()


class TestRefusals:
    """What is said where an expert cannot answer."""

    def test_an_algorithm_that_has_to_learn(self):
        with pytest.raises(UsageError, match="sac has to learn before it can answer: train it first"):
            find_expert("sac")

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(UsageError, match=r"Expected a policy or a run in .*nowhere, which does not exist"):
            find_expert(str(tmp_path / "nowhere"))

    def test_an_expert_of_another_task(self, tmp_path):
        plan = plan_for("Hopper-v5", expert_folder(tmp_path / "expert", "Pendulum-v1"))
        with pytest.raises(UsageError, match=r"Expected observations of shape \(3,\), as in Pendulum-v1"):
            opened(plan)

    def test_an_expert_that_changed(self, tmp_path):
        folder = expert_folder(tmp_path / "expert", "Pendulum-v1")
        plan = plan_for("Pendulum-v1", folder)
        expert_folder(folder, "Pendulum-v1", seed=1)
        with pytest.raises(UsageError, match="is not the expert that this run was begun with"):
            opened(plan)

    def test_no_expert_at_all(self):
        plan = Plan("Pendulum-v1", CLOCK, "dagger", SMALL, 0)
        with pytest.raises(UsageError, match="dagger asks an expert, and none is given: `workhorse imitate Pendulum"):
            make_loop(plan, plan.spec(), 1)

    def test_a_loop_that_can_open_none(self, tmp_path):
        plan = plan_for("Pendulum-v1", expert_folder(tmp_path / "expert", "Pendulum-v1"))
        loop = make_loop(plan, plan.spec(), 1)
        with pytest.raises(UsageError, match="dagger asks an expert, and none can be opened here"):
            loop.iterate(loop.start())
        loop.close()

    def test_a_planner_on_a_task_that_cannot_be_copied(self):
        with pytest.raises(UsageError, match="uct tries plans in copies of the task, but the simulator of FrozenLake"):
            opened(plan_for("FrozenLake-v1", "uct"))

    def test_a_run_from_elsewhere(self, tmp_path, monkeypatch):
        plan = plan_for("Pendulum-v1", expert_folder(tmp_path / "expert", "Pendulum-v1"))
        folder, _ = train.start(
            task="Pendulum-v1", algorithm="dagger", settings=SMALL, task_options=CLOCK, env_steps=9, root=tmp_path,
            sources=plan.sources, schedule=Schedule(final_episodes=1, milestones=0), threads=1,
        )  # fmt: skip
        require_trusted_sources(folder.manifest())
        monkeypatch.setattr("workhorse.runs.trust.is_trusted", lambda key: False)
        with pytest.raises(UsageError, match=r"would read .*expert, and it was not begun here by you"):
            train.resume(folder.path, env_steps=30, threads=1)


# --- demonstrations ---


def test_demonstrations_are_the_experts_episodes_with_their_true_successors(tmp_path):
    folder = expert_folder(tmp_path / "expert", "Hopper-v5")
    env, policy = environments.make("Hopper-v5", 2, 1, **CLOCK), Policy.load(folder)
    log = demonstrated("shown", env, PolicyExpert(policy), 5, 3, dict(CLOCK))
    assert log.num_episodes == 3 and log.card.task == "Hopper-v5" and log.card.task_options == CLOCK
    np.testing.assert_allclose(log.action, policy.choose(np.asarray(log.obs))[0], atol=1e-5)
    for episode in range(3):
        obs = env.reset(episode_keys(env, 5, "reset", 0, np.array([episode])), np.array([0]))
        for step in range(log.begins[episode], log.ends[episode]):
            np.testing.assert_allclose(log.obs[step], obs[0], rtol=1e-4, atol=1e-5)
            done = env.step(log.action[step][None], np.array([0]))
            obs = done.next_obs
            assert (log.terminated[step], log.truncated[step]) == (done.terminated[0], done.truncated[0])
            np.testing.assert_allclose(log.next_obs(np.array([step]))[0], obs[0], rtol=1e-4, atol=1e-5)
    env.close()


def test_noise_is_as_large_as_said_and_what_was_done_is_what_is_written():
    spec = EnvSpec("test", Box.unbounded(1), Box((-4.0, -4.0), (4.0, 4.0)), 10)
    noisy, answer = Noisy(spec, 0, 0.1), np.zeros((3, 2), np.float32)
    episodes = np.arange(3, dtype=np.int32)
    done = np.stack([noisy(answer, answer, episodes, now)[0] for now in range(2000)])
    assert 0.38 < done.std() < 0.42 and abs(done.mean()) < 0.02
    again = Noisy(spec, 0, 0.1)
    first = again(answer[:1], answer[:1], episodes[1:2], 0)[0]
    np.testing.assert_array_equal(first[0], done[0, 1])
    clipped = Noisy(spec, 0, 100.0)(answer, answer, episodes, 0)[0]
    assert (np.abs(clipped) <= 4).all()


def test_noise_on_choices_takes_random_ones_in_that_share():
    spec = EnvSpec("test", Box.unbounded(1), Discrete(4), 10)
    noisy, answer = Noisy(spec, 0, 0.4), np.full(2, 3)
    done = np.stack([noisy(answer, answer, np.arange(2), now)[0] for now in range(3000)])
    assert abs((done != 3).mean() - 0.4 * 3 / 4) < 0.03


# --- errors that compound ---


@dataclasses.dataclass(frozen=True)
class Steering:
    """A road: the offset y' = y + a - bend(phase); the expert steers along the bend and back to the middle.

    From the middle the expert never leaves it, so that its own episodes do not show how to come back. What a copy errs
    by in each step then adds up: after T steps it is T times as far away, and the sum over the steps is as T^2.
    """

    steps: int

    @property
    def spec(self):
        return EnvSpec("steering", Box.unbounded(3), Box((-2.0,), (2.0,)), self.steps)

    def _seen(self, y, phase):
        return jnp.stack([y, jnp.sin(phase), jnp.cos(phase)]).astype(jnp.float32)

    def reset(self, key):
        phase = jax.random.uniform(key, (), jnp.float32, 0, 2 * np.pi)
        y = jnp.float32(0)
        return (y, phase, jnp.int32(0)), self._seen(y, phase)

    def step(self, state, action, key):
        y, phase, clock = state
        y, clock = y + action[0] - bend(jnp.sin(phase), jnp), clock + 1
        phase = phase + jnp.float32(0.37)
        obs, ended = self._seen(y, phase), clock >= self.steps
        step = Step(obs, -jnp.abs(y).astype(jnp.float64), jnp.zeros((), bool), ended, obs, {})
        return (y, phase, clock), step


def bend(sine, numpy):
    """What a linear copy cannot do exactly: it errs to one side on average."""
    return numpy.where(sine > 0.9, 0.6, 0.3 * sine)


class Driver:
    """The expert of `Steering`."""

    def choose(self, observation, state=None):
        return np.clip(bend(observation[:, 1], np) - 0.5 * observation[:, 0], -2, 2)[:, None], None


def costs(steps, iterations, decay):
    """The cost of an episode after some iterations, whose every one shows 8 episodes."""
    env = Steering(steps)
    settings = {"hidden": (), "copy_updates": 600, "num_envs": 8, "share_decay": decay, "memory_size": 20_000}
    algorithm = registry.make("dagger", env.spec, settings)
    lanes = Lanes([make_player(algorithm, env, 25, 0)])
    loop = ImitationLoop(algorithm, 0, as_batch(env, 8), lanes, lambda spec: lambda env, root: PolicyExpert(Driver()))
    progress = loop.start()
    for _ in range(iterations):
        progress, _, _ = loop.iterate(progress)
    return -loop.evaluate(progress, 25).returns.mean()


@pytest.mark.slow
def test_what_cloning_errs_by_adds_up_and_answers_in_the_copys_own_states_mend_it():
    """As many demonstrations for both: with share_decay 1 the expert acts in all, which is behaviour cloning."""
    cloned, asked = ({steps: costs(steps, 6, decay) for steps in (40, 160)} for decay in (1.0, 0.0))
    assert cloned[160] > 8 * cloned[40], "four times the steps cost more than 8 times as much, towards 16"
    assert asked[160] < 6 * asked[40], "and here towards 4"
    assert asked[160] < 0.2 * cloned[160]


def test_the_player_leaves_idle_slots_alone():
    env = as_batch(Steering(5), 3)
    player = ExpertEpisodes(env, PolicyExpert(Driver()), 0)
    played = player.play("reset", 0, np.array([4, -1, 2], np.int32))
    assert played.length.tolist() == [5, 0, 5] and not played.is_there[:, 1].any()
    other = player.play("reset", 0, np.array([2, -1, -1], np.int32))
    np.testing.assert_array_equal(played.obs[:, 2], other.obs[:, 0])
    assert np.abs(played.returns[[0, 2]]).max() < 1e-4, "the expert stays in the middle"


# --- gail ---

GAIL = {
    "num_envs": 2, "held_out_envs": 0, "rollout_steps": 16, "minibatch_size": 16, "num_epochs": 2, "hidden": (8,),
    "memory_size": 60, "discriminator_hidden": (8,), "discriminator_updates": 4, "discriminator_batch_size": 8,
}  # fmt: skip


def demonstrations_at(path, task="Pendulum-v1", episodes=1):
    env, expert = as_batch(environments.make(task, 1, 1, **CLOCK), 1), Policy.load(expert_folder(path / "expert", task))
    log = demonstrated("shown", env, PolicyExpert(expert), 5, episodes, dict(CLOCK))
    env.close()
    return log, Sources("imitate", str(write_log_folder(log, path / "log")), log.digest())


def test_one_demonstration_is_enough_and_is_part_of_the_state(tmp_path):
    log, sources = demonstrations_at(tmp_path)
    plan = Plan("Pendulum-v1", CLOCK, "gail", GAIL, 3, sources=sources)
    loop = make_loop(plan, plan.spec(), 1)
    assert int(loop.start().state.extra.seen) == 0, "evaluating opens no log"
    loop.prepare()
    kept = loop.start().state.extra
    assert int(kept.seen) == 9 == kept.memory.is_there.sum()
    np.testing.assert_allclose(kept.memory.obs[:9], log.obs, rtol=1e-6)
    np.testing.assert_allclose(kept.memory.action[:9], np.asarray(log.action) / 2, atol=1e-6)  # the box is [-2, 2]
    loop.close()


def test_a_gail_run_goes_on_bit_for_bit_and_is_judged_without_its_log(tmp_path):
    import polars as pl

    _, sources = demonstrations_at(tmp_path, episodes=2)
    given = {
        "task": "Pendulum-v1", "algorithm": "gail", "settings": GAIL | {"anneal_learning_rate": False},
        "task_options": CLOCK, "sources": sources, "schedule": Schedule(final_episodes=1, milestones=0),
        "root": tmp_path, "threads": 1,
    }  # fmt: skip
    whole, _ = train.start(**given, env_steps=96, id="whole")
    part, _ = train.start(**given, env_steps=32, id="part")
    part, _ = train.resume(part.path, env_steps=96, threads=2)
    one, other = (pl.read_parquet(folder.path / "metrics.parquet")["digest"].to_list() for folder in (whole, part))
    assert one == other and len(set(one)) == 3
    (tmp_path / "log").rename(tmp_path / "elsewhere")
    assert len(train.evaluate_run(whole.path, episodes=2, threads=1)[1].returns) == 2
    with pytest.raises(UsageError, match="Expected a log in"):
        train.resume(whole.path, env_steps=200, threads=1)


# --- learning ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "least"),
    [
        ("InvertedPendulum-v5 --expert lqr --env-steps 12000 --copy-updates 200", 900),
        ("Pendulum-v1 --expert predictive-sampling --algorithm gail --demonstrations 10 --env-steps 150000", -600),
    ],
    ids=["dagger", "gail"],
)
def test_the_expert_is_imitated(tmp_path, monkeypatch, words, least):
    """A policy that learnt nothing earns about 10 on the first and -1,300 on the second."""
    monkeypatch.chdir(tmp_path)
    rest = "--final-episodes 10 --evaluate-every 0 --threads 1 --quiet --id r"
    assert main(["imitate", *words.split(), *rest.split()]) == 0
    status = RunFolder.open("runs/r").status()
    assert status is not None and status.last_return > least
