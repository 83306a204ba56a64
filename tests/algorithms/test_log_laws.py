"""Laws that every algorithm keeps that needs a log, in the loop of updates alone."""

import re

import numpy as np
import pytest

from tests.algorithms.test_laws import REPLAYED, SPACES, taken
from tests.logs import written_log
from workhorse.algorithms import registry
from workhorse.core.digest import digest, flatten_arrays, restore_arrays
from workhorse.core.errors import UsageError
from workhorse.data.log_folder import read_log_folder
from workhorse.training import offline
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.sources import Sources

LOGGED = [name for name in REPLAYED if getattr(registry.algorithm_class(name), "needs_log", False)]


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A small log of each kind of actions, by the kind."""
    tasks = {"box": "Pendulum-v1", "discrete": "CartPole-v1"}
    return {kind: written_log(tmp_path_factory.mktemp(kind) / "log", task) for kind, task in tasks.items()}


def has_learnt(metrics):
    """Whether what an update tells is finite; a measure on held-out steps may be missing."""
    told = [value for name, value in metrics.items() if name.endswith(("_loss", "_norm", "_error")) or name == "value"]
    return bool(told) and np.isfinite(told).all() and not np.isinf(list(metrics.values())).any()


@pytest.mark.parametrize("name", LOGGED)
class TestOfALog:
    """Laws of the algorithms that need a log, in the loop of updates alone."""

    def loop(self, name, logs, kind=None, **sources):
        kind = kind or taken(name, SPACES)[0]
        known, small = registry.options(name), {"hidden": (8,), "batch_size": 16}
        settings = {option: value for option, value in small.items() if option in known}
        log = read_log_folder(logs[kind])
        about = Sources("offline", str(logs[kind]), log.digest(), **{"updates_per_iteration": 12} | sources)
        plan = Plan(log.card.task, {}, name, settings, 3, sources=about)
        return make_loop(plan, plan.spec(), 1)

    def test_a_run_goes_on_from_arrays_to_the_same_bits_and_compiles_nothing_more(self, name, logs):
        loop = self.loop(name, logs)
        progress, first, failures = loop.iterate(loop.start())
        stored = {label: array.copy() for label, array in flatten_arrays(progress).items()}
        compiled = offline._updates._cache_size()
        progress, metrics, _ = loop.iterate(progress)
        assert offline._updates._cache_size() == compiled and not failures
        other = self.loop(name, logs)
        again, same, _ = other.iterate(restore_arrays(other.start(), stored))
        assert digest(progress) == digest(again) and metrics == pytest.approx(same, nan_ok=True)
        assert int(progress.state.updates) == 24 == metrics["updates"]
        assert first["step_norm"] + metrics["step_norm"] > 0 and has_learnt(metrics)
        for one in (loop, other):
            one.close()

    def test_its_normaliser_has_seen_the_steps_that_are_learnt_from_and_no_others(self, name, logs):
        loop = self.loop(name, logs, held_out=0.4)
        progress, _, _ = loop.iterate(loop.start())
        seen = np.asarray(loop._parts.log.obs, np.float64)[loop._parts.train]
        np.testing.assert_allclose(progress.state.observations.mean, seen.mean(0), atol=1e-9)
        assert progress.state.observations.count == len(seen) < loop._parts.log.num_steps
        loop.close()

    def test_it_can_be_played_where_the_task_is_there_and_refuses_where_it_is_not(self, name, logs):
        loop = self.loop(name, logs)
        progress, _, _ = loop.iterate(loop.start())
        played = loop.evaluate(progress, 2)
        assert np.isfinite(played.returns).all() and len(played.returns) == 2
        loop.close()
        blind = self.loop(name, logs, evaluate=False)
        with pytest.raises(UsageError, match="cannot be played: begin the run with --evaluate-on TASK"):
            blind.evaluate(progress, 2)

    def test_it_learns_from_choices_where_it_takes_them(self, name, logs):
        for kind in taken(name, SPACES)[1:]:
            loop = self.loop(name, logs, kind)
            progress, metrics, _ = loop.iterate(loop.start())
            assert metrics["step_norm"] > 0 and has_learnt(metrics)
            assert loop.evaluate(progress, 2).lengths.min() >= 8, "no pole falls sooner"
            loop.close()

    def test_it_is_not_trained_without_a_log(self, name):
        plan = Plan("Pendulum-v1" if "box" in taken(name, SPACES) else "CartPole-v1", {}, name, {}, 0)
        with pytest.raises(UsageError, match=rf"{re.escape(name)} learns from a log, and none is given"):
            make_loop(plan, plan.spec(), 1)
