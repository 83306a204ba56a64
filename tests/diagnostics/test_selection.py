"""Choice of policies by a log, on a task of one step whose values are known."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import truncnorm

import workhorse
from workhorse.cli import select as command
from workhorse.core.errors import UsageError
from workhorse.core.layers import Argmax, Dense, Mode
from workhorse.core.spec import Box, Discrete, MultiBinary
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import write_log_folder
from workhorse.diagnostics.selection import FITTED, TargetPolicy, folders, select, target_log_prob
from workhorse.runs.policy import Policy

STEPS, SPREAD = 3000, 0.5
BOX = Box((-2.0,), (2.0,))


def one_step_log(*, known=True, seed=0):
    """Episodes of one step that earn -(a/2 - s)^2; the behaviour is a Gaussian around s, in halves of the range."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(-0.7, 0.7, (STEPS, 1)).astype(np.float32)
    edges = (-1 - 0.5 * obs) / SPREAD, (1 - 0.5 * obs) / SPREAD
    kind = truncnorm(*edges, loc=0.5 * obs, scale=SPREAD)
    own = kind.rvs(random_state=rng)
    log_prob = kind.logpdf(own)[:, 0] - math.log(2)  # of the action in the task's own numbers, twice as wide
    return Dataset.of(
        "one-step", Box.unbounded(1), BOX, obs=obs, action=(2 * own).astype(np.float32),
        reward=-np.square(own - obs)[:, 0], terminated=np.ones(STEPS, bool), truncated=np.zeros(STEPS, bool),
        final_obs=obs, begins=np.arange(STEPS), log_prob=log_prob if known else None,
    )  # fmt: skip


def candidate(tmp_path, slope, truth=None, layers=None, action=BOX):
    layers = layers or [Dense(np.array([[2 * slope]], np.float32)), Mode()]
    policy = Policy(layers, observation=Box.unbounded(1), action=action, task="one-step")
    place = policy.save(tmp_path / f"policy{slope}")
    status = SimpleNamespace(last_return=truth)
    return SimpleNamespace(path=place, id=str(slope), has_metrics=False, status=lambda: status)


def truth_of(log, slope, width=0.0):
    """-E[(slope s + e - s)^2] over the log's states, e of the cut Gaussian."""
    edges = (-1 - slope * log.obs) / max(width, 1e-6), (1 - slope * log.obs) / max(width, 1e-6)
    noise = truncnorm(*edges, loc=slope * log.obs, scale=max(width, 1e-6))
    return -(noise.var() + np.square(noise.mean() - log.obs)).mean()


@pytest.mark.parametrize("known", [True, False])
def test_estimates_are_near_the_truth_and_the_best_policy_is_chosen(tmp_path, known):
    log = one_step_log(known=known)
    slopes = (0.9, 0.2, -0.6)
    runs = [candidate(tmp_path, slope, truth=float(truth_of(log, slope))) for slope in slopes]
    found = select(log, runs, width=0.2, updates=1000)
    for slope, one in zip(slopes, found.candidates, strict=True):
        assert one.estimates[FITTED].interval.value == pytest.approx(truth_of(log, slope), abs=0.05)
        wanted, room = truth_of(log, slope, 0.2), 0.04 if known else 0.1
        for name in ("ordinary", "per decision", "weighted per decision", "doubly robust", "weighted doubly robust"):
            given = one.estimates[name]
            assert given.interval.value == pytest.approx(wanted, abs=room), name
            assert given.interval.low < given.interval.value < given.interval.high
            assert 100 < given.effective < STEPS
    assert found.chosen().name.endswith("0.9")
    assert found.rankings[FITTED].regret == 0 and found.rankings[FITTED].correlation == 1
    assert 0.3 < found.rankings[FITTED].regret_of_chance < 0.7
    assert any("was fitted" in note for note in found.notes) != known


def test_without_the_truth_there_is_no_ranking(tmp_path):
    runs = [candidate(tmp_path, 0.9, 1.0), candidate(tmp_path, 0.1, None)]
    assert select(one_step_log(), runs, updates=20).rankings == {}


def test_choices_are_judged(tmp_path):
    """Two choices, of which the first earns s and the other -s; the log takes either by a coin."""
    rng = np.random.default_rng(1)
    obs = rng.uniform(-1, 1, (STEPS, 1)).astype(np.float32)
    action = rng.integers(0, 2, STEPS)
    log = Dataset.of(
        "coin", Box.unbounded(1), Discrete(2), obs=obs, action=action, reward=np.where(action == 0, 1, -1) * obs[:, 0],
        terminated=np.ones(STEPS, bool), truncated=np.zeros(STEPS, bool), final_obs=obs, begins=np.arange(STEPS),
        log_prob=np.full(STEPS, math.log(0.5)),
    )  # fmt: skip
    runs = [
        candidate(tmp_path, slope, layers=[Dense(np.array([[slope], [-slope]], np.float32)), Argmax()],
                  action=Discrete(2))
        for slope in (1.0, -1.0)
    ]  # fmt: skip
    found = select(log, runs, width=0.2, updates=800)
    for one, sign in zip(found.candidates, (1, -1), strict=True):
        assert one.estimates[FITTED].interval.value == pytest.approx(0.5 * sign, abs=0.06)
        for name in ("ordinary", "doubly robust"):
            assert one.estimates[name].interval.value == pytest.approx(0.8 * 0.5 * sign, abs=0.06)


@pytest.mark.parametrize("chosen", [-0.95, 0.0, 0.4, 1.0])
def test_the_density_around_a_policy_is_a_cut_gaussian(chosen):
    action = np.array([-1.0, -0.3, 0.2, 0.99])[:, None]
    found = target_log_prob(TargetPolicy(0.3, False), np.full_like(action, chosen), action)
    kind = truncnorm((-1 - chosen) / 0.3, (1 - chosen) / 0.3, loc=chosen, scale=0.3)
    assert found == pytest.approx(kind.logpdf(action[:, 0]), abs=1e-9)


def test_what_cannot_be_judged_is_said_in_a_sentence(tmp_path):
    log, run = one_step_log(), candidate(tmp_path, 0.5)
    with pytest.raises(UsageError, match=r"discount must be in \[0, 1\): got 1"):
        select(log, [run], discount=1.0)
    with pytest.raises(UsageError, match=r"width must be in \(0, 1\), in halves of the range of an action: got 0"):
        select(log, [run], width=0.0)
    with pytest.raises(UsageError, match="at least one run behind the log, got none"):
        select(log, [])
    other = candidate(tmp_path, 7, layers=[Dense(np.eye(2, 1, dtype=np.float32)), Argmax()], action=Discrete(2))
    with pytest.raises(UsageError, match="name runs on the log's own task"):
        select(log, [other])
    several = Dataset.of(
        "bits", Box.unbounded(1), MultiBinary(2), obs=log.obs[:4], action=np.zeros((4, 2), np.int8),
        reward=np.zeros(4), terminated=np.ones(4, bool), truncated=np.zeros(4, bool), final_obs=log.obs[:4],
        begins=np.arange(4),
    )  # fmt: skip
    with pytest.raises(UsageError, match="judges actions in a box or one choice"):
        select(several, [run])
    with pytest.raises(UsageError, match=r"missing.*"):
        folders([tmp_path / "missing"])


@pytest.mark.slow
def test_the_command_prints_what_was_found(tmp_path, capsys):
    log = one_step_log()
    write_log_folder(log, tmp_path / "log")
    small = {"hidden": (4,), "batch_size": 8, "updates": 20, "progress": False, "runs": tmp_path / "runs"}
    for seed in range(2):
        workhorse.offline(tmp_path / "log", "td3+bc", seed=seed, id=f"r{seed}", **small)
    words = [str(tmp_path / "log"), *(str(tmp_path / "runs" / f"r{seed}") for seed in range(2)), "--updates", "50"]
    assert command.run([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [one["run"][-2:] for one in record["candidates"]] == ["r0", "r1"]
    assert record["rankings"] == {} and record["chosen"] in {one["run"] for one in record["candidates"]}
    own = record["candidates"][0]["estimates"]["own values"]
    assert np.isfinite(own["value"]) and own["low"] is None
    assert command.run(words) == 0
    shown = capsys.readouterr().out
    assert "fitted Q" in shown and shown.strip().splitlines()[-1].startswith("Chosen: ")
    with pytest.raises(UsageError, match="is named twice"):
        command.run([*words[:3], words[1], *words[3:]])
