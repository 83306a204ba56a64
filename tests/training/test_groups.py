"""Runs that share a process: what they learn is what each learns alone, and none waits for one that is gone."""

import threading
from dataclasses import replace

import jax
import numpy as np
import pytest

from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.core.machine import describe_hardware
from workhorse.runs import train
from workhorse.runs.metrics import read_metrics
from workhorse.training import groups, replay_arrays
from workhorse.training.groups import RunGroup, together
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

SEEDS = (3, 5, 8)
STEPS = 4 * 64
PATIENCE_S = 90.0
PLANS = {
    "openai-es": Plan("CartPole-v1", {"max_episode_steps": 20}, "openai-es", {"num_pairs": 4}, 0),
    "ars": Plan("Pendulum-v1", {"max_episode_steps": 20}, "ars", {"num_directions": 4, "num_top_directions": 2}, 0),
    "ppo": Plan(
        "CartPole-v1",
        {},
        "ppo",
        {
            "num_envs": 4,
            "rollout_steps": 16,
            "minibatch_size": 32,
            "num_epochs": 1,
            "hidden": (8,),
            "anneal_env_steps": STEPS,
        },
        0,
    ),
}
REPLAY = {
    "num_envs": 2, "rollout_steps": 16, "learn_every": 8, "batch_size": 8, "warmup_env_steps": 32,
    "replay_capacity": 100, "replay_ratio": 4.0, "hidden": (8,),
}  # fmt: skip
PLANS |= {
    "sac": Plan("Pendulum-v1", {"max_episode_steps": 20}, "sac", REPLAY, 0),
    "dqn": Plan("CartPole-v1", {}, "dqn", {**REPLAY, "anneal_env_steps": 500, "prioritised": True}, 0),
}
PPO = PLANS["ppo"]
QUICK = train.Schedule(evaluate_every=0, final_episodes=4, checkpoint_every_s=0)


def in_time(function, *given):
    """Return the result of the function; fail where it hangs."""
    outcome = []

    def run():
        try:
            outcome.append((function(*given), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert outcome, f"still waiting after {PATIENCE_S} s"
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def group_of(plan, threads=2, seeds=SEEDS):
    return RunGroup({seed: replace(plan, seed=seed) for seed in seeds}, threads=threads)


def learnt(loop, iterations=4):
    """Digests of the state after each iteration, and the returns of an evaluation at the end."""
    try:
        progress, found = loop.start(), []
        for _ in range(iterations):
            progress, _, _ = loop.iterate(progress)
            found.append(digest(progress.state))
        return found, loop.evaluate(progress, 5).returns.tolist()
    finally:
        loop.close()


def grouped(plan, group, iterations=lambda seed: 4):
    def one(seed, make):
        return learnt(make(replace(plan, seed=seed), group.spec, 1), iterations(seed))

    return in_time(together, group, one)


def alone(plan, seed, iterations=4):
    own = replace(plan, seed=seed)
    return learnt(make_loop(own, own.spec(), 1), iterations)


@pytest.mark.parametrize("name", list(PLANS))
def test_runs_together_learn_what_each_learns_alone(name):
    found = grouped(PLANS[name], group_of(PLANS[name]))
    assert len({digests[-1] for digests, _ in found.values()}) == len(SEEDS), "different seeds must differ"
    for seed in SEEDS[:2]:
        assert found[seed] == alone(PLANS[name], seed)


def test_each_run_of_a_group_has_a_replay_of_its_own_and_the_memory_of_all_is_asked_for(monkeypatch):
    plan, replays = PLANS["sac"], {}
    group = group_of(plan)

    def one(seed, make):
        loop = make(replace(plan, seed=seed), group.spec, 1)
        progress = loop.iterate(loop.start())[0]
        part = loop.segments()["replay"]
        replays[seed] = part.read(*part.cursor(progress))["obs"]
        assert len(loop.sample(progress, 2).returns) == 2, "the policy is stochastic"
        assert list(loop.notes()) == [] == list(loop.messages()) and loop.metrics() == {}
        loop.close()

    assert all(outcome is None for outcome in in_time(together, group, one).values())
    assert len({replay.tobytes() for replay in replays.values()}) == len(SEEDS)
    one_replay = replay_arrays.replay_bytes(plan.make_algorithm(plan.spec()))
    memory = int(2 * one_replay / replay_arrays.MEMORY_SHARE)
    hardware = replace(describe_hardware(), memory_bytes=memory)
    monkeypatch.setattr(replay_arrays, "describe_hardware", lambda: hardware)
    group_of(plan, seeds=SEEDS[:2])
    with pytest.raises(UsageError, match=r"100 steps of Pendulum-v1 in each of 3 runs in one process needs"):
        group_of(plan)


def test_a_run_that_raises_leaves_the_others_alone():
    def iterations(seed):
        if seed == 5:
            raise ZeroDivisionError("planted")
        return 4

    plan = PLANS["openai-es"]
    found = grouped(plan, group_of(plan), iterations)
    assert isinstance(found[5], ZeroDivisionError)
    for seed in (3, 8):
        assert found[seed] == alone(plan, seed)


def trained(root, seed, make=None, observer=None):
    """Train a run and return its digests, one an iteration."""
    folder, _ = train.start(
        task="CartPole-v1",
        algorithm="ppo",
        settings=PPO.settings,
        env_steps=STEPS,
        seed=seed,
        threads=1,
        schedule=QUICK,
        root=root,
        id=f"s{seed}",
        make=make,
        observer=observer,
    )
    return read_metrics(folder.path)["digest"].to_list()


class StopsAt(train.Observer):
    """Ctrl-C at an iteration."""

    def __init__(self, iteration):
        self.iteration = iteration

    def iterated(self, row):
        if row["iteration"] == self.iteration:
            raise KeyboardInterrupt


class StopsAll(train.Observer):
    """Tells the whole group to stop at an iteration."""

    def __init__(self, group, iteration):
        self.group, self.iteration = group, iteration

    def iterated(self, row):
        if row["iteration"] == self.iteration:
            self.group.stop.set()


def test_a_run_of_a_group_that_was_interrupted_goes_on_alone_to_the_same_bits(tmp_path):
    group = group_of(PPO)
    found = together(
        group,
        lambda seed, make: trained(tmp_path / "together", seed, make, StopsAt(2) if seed == 8 else None),
    )
    expected = {seed: trained(tmp_path / "alone", seed) for seed in (3, 8)}
    assert found[3] == expected[3]
    assert len(set(found[3] + found[5])) == 8, "different seeds must differ"
    assert isinstance(found[8], KeyboardInterrupt)
    folder, _ = train.resume(tmp_path / "together" / "s8", threads=1)
    assert read_metrics(folder.path)["digest"].to_list() == expected[8]


def test_a_group_that_is_stopped_saves_every_run(tmp_path):
    group = group_of(PPO, threads=1)
    found = in_time(together, group, lambda seed, make: trained(tmp_path, seed, make, StopsAll(group, 2)))
    assert any(isinstance(outcome, KeyboardInterrupt) for outcome in found.values())
    again = in_time(
        together, group_of(PPO), lambda seed, make: train.resume(tmp_path / f"s{seed}", make=make)[0].status().state
    )
    assert again == dict.fromkeys(SEEDS, "finished")


def test_float_settings_are_swept_in_one_program():
    rates = {0: 1e-9, 1: 1e-2}
    swept = {number: replace(PPO, settings={**PPO.settings, "learning_rate": rate}) for number, rate in rates.items()}
    group, moved = RunGroup(swept), {}

    def one(number, make):
        loop = make(swept[number], group.spec, 1)
        start = loop.start()
        after, metrics, _ = loop.iterate(start)
        loop.close()
        steps = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after.state.params, start.state.params)
        moved[number] = max(jax.tree.leaves(steps))
        return metrics["learning_rate"]

    found = together(group, one)
    assert found == {number: pytest.approx(rate) for number, rate in rates.items()}
    assert moved[0] < 1e-6 < 1e-3 < moved[1]


def test_a_run_is_charged_its_share_of_the_process(monkeypatch):
    """One core is held all the time, more while threads compute side by side; those under way share it evenly."""

    class Clock:
        clock = processor = 0.0

        def monotonic(self):
            return self.clock

        def process_time(self):
            return self.processor

        def passes(self, clock, processor):
            self.clock += clock
            self.processor += processor

    clock = Clock()
    monkeypatch.setattr(groups, "time", clock)
    group = group_of(PPO)
    group._is_compiled = True
    one, two, _ = SEEDS
    kind = describe_hardware().cpu
    clock.passes(100, 100)  # before anything is under way
    with group.member(one):
        clock.passes(10, 4)
        with group.member(two):
            clock.passes(10, 16)
            assert group.core_seconds(one) == {kind: 10 + 8}
            assert group.core_seconds(one) == {kind: 0}, "nothing is charged twice"
            clock.passes(2, 2)
            assert group.core_seconds(two) == {kind: 8 + 1}
        clock.passes(3, 0)
        assert group.core_seconds(one) == {kind: 1 + 3}
        assert group.core_seconds(two) == {kind: 0}


def test_what_cannot_share_a_program_is_refused():
    with pytest.raises(ValueError, match="pure JAX environment"):
        RunGroup({0: replace(PPO, task="Hopper-v5")})
    with pytest.raises(ValueError, match="at least one run"):
        RunGroup({})
    with pytest.raises(ValueError, match="differ in float settings only"):
        RunGroup({0: PPO, 1: replace(PPO, settings={**PPO.settings, "hidden": (16,)})})
    with pytest.raises(ValueError, match="same algorithm: 'ppo' of run 0, 'a2c' of run 1"):
        RunGroup({0: replace(PPO, settings={}), 1: replace(PPO, algorithm="a2c", settings={})})
    group = group_of(PLANS["openai-es"])
    with pytest.raises(ValueError, match="Run 4 is not of this group"), group.member(4):
        pass
    own = replace(PLANS["openai-es"], seed=3)
    for other in (replace(own, seed=5), replace(own, task_options={}), replace(own, settings={"num_pairs": 5})):
        with group.member(3) as make, pytest.raises(ValueError, match="Run 3 must have the plan"):
            make(other, group.spec, 1)


def test_an_interrupt_of_the_main_thread_stops_every_run(monkeypatch):
    group, waited, join = group_of(PLANS["openai-es"]), [], threading.Thread.join

    def interrupted(thread, timeout=None):
        if thread.name.startswith("run-") and not waited:
            waited.append(thread)
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grouped(PLANS["openai-es"], group, lambda seed: 10**9)
    assert group.stop.is_set() and not [t for t in threading.enumerate() if t.name.startswith("run-")]
