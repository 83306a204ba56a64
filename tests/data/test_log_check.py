"""The check of a log: planted faults are named with their rows, and legal oddities are none."""

from dataclasses import replace

import numpy as np
import pytest

from workhorse.api.datasets import check, make
from workhorse.cli.main import main
from workhorse.core.spec import Box
from workhorse.data.dataset import Dataset
from workhorse.data.log_check import check_log
from workhorse.data.log_findings import OwnSteps
from workhorse.data.log_fits import LogFits, surprises, unexplained
from workhorse.data.log_folder import write_log_folder
from workhorse.data.log_order import JUMP, acted_shift

LIMIT = 100


def cart(noise=0.5, episodes=60, seed=0, drift=0.0, wall=-np.inf):
    """Episodes of a cart that is pushed to the middle: x' = x + 0.1 v', v' = v + 0.1 a; it falls off at |x| > 1.

    The wall stops it.
    """
    rng = np.random.default_rng(seed)
    rows, finals, begins = [], [], []
    for _ in range(episodes):
        place, speed = rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2)
        begins.append(len(rows))
        for step in range(1, LIMIT + 1):
            action = np.clip(drift - place - speed + rng.normal(0, noise), -2, 2) if noise else -place - speed
            speed_after = speed + 0.1 * action
            after = place + 0.1 * speed_after
            if after <= wall:
                after, speed_after = wall, 0.0
            terminated, truncated = abs(after) > 1, step == LIMIT and abs(after) <= 1
            rows.append(((place, speed), action, -(after**2) - 0.1 * action**2, terminated, truncated))
            place, speed = after, speed_after
            if terminated or truncated:
                break
        finals.append((place, speed))
    obs, action, reward, terminated, truncated = map(np.array, zip(*rows, strict=True))
    return Dataset.of(
        "cart", Box.unbounded(2), Box((-2.0,), (2.0,)), obs=obs.astype(np.float32),
        action=action.astype(np.float32)[:, None], reward=reward.astype(np.float32), terminated=terminated,
        truncated=truncated, final_obs=np.array(finals, np.float32), begins=np.array(begins),
        max_episode_steps=LIMIT, log_prob=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def log():
    return cart(drift=0.8)


def own_steps():
    play = cart(noise=2.0, seed=9)
    return OwnSteps(play.spec(), np.asarray(play.obs)[play.begins], np.asarray(play.obs), np.asarray(play.reward))


def stops(dataset, own=None):
    """The faults found, by topic."""
    found = {}
    for finding in check_log(dataset, own):
        if finding.verdict == "stop":
            found[finding.topic] = " ".join([found.get(finding.topic, ""), finding.text]).strip()
    return found


def moved(column, dataset, by):
    found = np.array(column)
    for begin, end in zip(dataset.begins, dataset.ends, strict=True):
        found[begin:end] = np.roll(found[begin:end], by, axis=0)
    return found


def with_rows(dataset, keep):
    """Leave out rows inside of episodes."""
    episode = dataset.episode_of(np.arange(dataset.num_steps))[keep]
    columns = {name: getattr(dataset, name)[keep] for name in ("obs", "action", "reward", "terminated", "truncated")}
    return replace(dataset, **columns, begins=np.flatnonzero(np.diff(episode, prepend=-1)))


def changed(column, at, value):
    found = np.array(column)
    found[at] = value
    return found


def copied_end(log):
    """The last rows of episodes, with a final observation each."""
    return np.asarray(log.obs)[log.ends - 1]


def with_lost_ends(log):
    lost = np.arange(0, log.num_episodes - 1, 4)
    kept = np.setdiff1d(np.arange(log.num_episodes), lost + 1)
    return replace(
        log,
        terminated=changed(log.terminated, log.ends[lost] - 1, False),
        truncated=changed(log.truncated, log.ends[lost] - 1, False),
        begins=log.begins[kept],
        final_obs=log.final_obs[np.append(kept[1:] - 1, log.num_episodes - 1)],
        card=replace(log.card, max_episode_steps=None),
    )


def begin_of_a_long_one(log):
    """The first row of the third episode that went to the clock."""
    return int(log.begins[np.flatnonzero(log.lengths == LIMIT)[2]])


def stuck(log):
    row = begin_of_a_long_one(log) + 10
    return replace(log, obs=changed(log.obs, (slice(row, row + 70), 1), log.obs[row, 1]))


def gap(log):
    row = begin_of_a_long_one(log) + 5
    return with_rows(log, ~np.isin(np.arange(log.num_steps), np.arange(row, row + 30)))


PLANTED = {
    "not a number": (
        lambda log: replace(log, obs=changed(log.obs, (7, 1), np.nan)),
        "numbers",
        "`obs` is not finite in row 7: fill the gaps",
    ),
    "an infinite final observation": (
        lambda log: replace(log, final_obs=changed(log.final_obs, (3, 0), np.inf)),
        "numbers",
        "`final_obs` is not finite in episode 3:",
    ),
    "a copy of an episode": (
        lambda log: log.of_episodes(np.append(np.arange(60), 4)),
        "episodes",
        "1 of 61 episodes are there twice, as 60, which is 4 again: leave the copies out",
    ),
    "one episode": (
        lambda log: log.of_episodes(np.array([0])),
        "episodes",
        "There is 1 episode, and at least 2 are needed",
    ),
    "clocks as terminations": (
        lambda log: replace(log, terminated=log.terminated | log.truncated, truncated=np.zeros_like(log.truncated)),
        "ends",
        "episodes are marked as terminated after exactly 100 steps",
    ),
    "clocks as terminations, of an unknown clock": (
        lambda log: replace(
            log,
            terminated=log.terminated | log.truncated,
            truncated=np.zeros_like(log.truncated),
            card=replace(log.card, max_episode_steps=None),
        ),
        "ends",
        "and none as truncated: a clock ended them",
    ),
    "terminations as clocks": (
        lambda log: replace(log, truncated=log.terminated | log.truncated, terminated=np.zeros_like(log.truncated)),
        "ends",
        "are cut by the clock before its 100 steps",
    ),
    "one column in both": (
        lambda log: replace(log, truncated=log.terminated | log.truncated, terminated=log.terminated | log.truncated),
        "ends",
        "are both set where 60 episodes end",
    ),
    "no ends": (
        lambda log: replace(log, truncated=np.zeros_like(log.truncated), terminated=np.zeros_like(log.truncated)),
        "ends",
        "No step is marked as terminated or truncated",
    ),
    "an end inside of an episode": (
        lambda log: replace(log, terminated=changed(log.terminated, 3, True)),
        "ends",
        "Ends are marked inside of episodes, in row 3:",
    ),
    "longer than the clock": (
        lambda log: replace(log, card=replace(log.card, max_episode_steps=50)),
        "ends",
        "are longer than the 50 steps of the task's clock",
    ),
    "resets as successors": (
        lambda log: replace(log, final_obs=np.roll(np.asarray(log.obs)[log.begins], -1, axis=0)),
        "successors",
        "is the first of the next one",
    ),
    "no successors": (
        lambda log: replace(log, final_obs=copied_end(log)),
        "successors",
        "is the last one once more in 60 episodes",
    ),
    "a stuck sensor": (stuck, "observations", "Component 1 of the observation does not change for 50 steps"),
    "the action is observed": (
        lambda log: replace(log, obs=changed(log.obs, (slice(None), 1), log.action[:, 0])),
        "observations",
        "Component 1 of the observation is the action that is about to be taken",
    ),
    "outside the box": (
        lambda log: replace(log, action=changed(log.action, (11, 0), 2.5)),
        "actions",
        "Actions are outside of their box in row 11, where component 0 is 2.5 and its bounds are -2 and 2",
    ),
    "normalised": (
        lambda log: replace(log, action=np.clip(log.action, -1, 1)),
        "actions",
        "Actions go from -1 to 1 in component 0, whose bounds are -2 and 2",
    ),
    "a constant action": (
        lambda log: replace(log, action=np.zeros_like(log.action)),
        "actions",
        "Component 0 of the action is the same in all rows, 0:",
    ),
    "half precision": (
        lambda log: replace(log, obs=log.obs.astype(np.float16)),
        "precision",
        "Observations are float16",
    ),
    "rounded to half precision": (
        lambda log: replace(log, obs=log.obs.astype(np.float16).astype(np.float32)),
        "precision",
        "Component 0, 1 of the observation was rounded to float16",
    ),
    "a gap in time": (
        lambda log: replace(
            log,
            card=replace(
                log.card,
                made={"time": {"column": "t", "usual_step": 0.1, "longest_step": 3, "jumps": 2, "jump_rows": [5, 9]}},
            ),
        ),
        "time",
        "The time in `t` jumps 2 times within episodes, up to 3 where a step takes 0.1, in rows 5, 9",
    ),
    "actions a row late": (
        lambda log: replace(log, action=moved(log.action, log, 1)),
        "alignment",
        "told by the action of the row after each",
    ),
    "actions a row early": (
        lambda log: replace(log, action=moved(log.action, log, -1)),
        "alignment",
        "told by the action of the row before each",
    ),
    "rewards a row late": (
        lambda log: replace(log, reward=moved(log.reward, log, 1)),
        "alignment",
        "told by the observation and the action of the row before each",
    ),
    "rewards a row early": (
        lambda log: replace(log, reward=moved(log.reward, log, -1)),
        "alignment",
        "told by the observation and the action of the row after each",
    ),
    "rows in no order": (
        lambda log: replace(log, obs=np.random.default_rng(0).permutation(log.obs)),
        "order",
        "the rows are not in the order of time",
    ),
    "rows missing": (
        gap,
        "order",
        "the observation jumps as it does nowhere else",
    ),
    "lost ends": (with_lost_ends, "order", "the observation jumps to what begins episodes"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named(log, name):
    plant, topic, words = PLANTED[name]
    assert words in stops(plant(log)).get(topic, "")


def test_the_rows_of_a_fault_are_named(log):
    row = begin_of_a_long_one(log)
    assert f"After row {row + 4} the observation jumps" in stops(gap(log))["order"]
    assert f"50 steps and more from row {row + 11} on" in stops(stuck(log))["observations"]


def test_no_fault_is_found_where_none_was_planted(log):
    """Logs with ends of both kinds, without noise, with random actions, of few steps, and cut off."""
    logs = [
        log, cart(noise=3.0, seed=1), cart(noise=0.0, seed=2), cart(seed=3), cart(seed=4, episodes=3),
        replace(log, truncated=np.zeros_like(log.truncated), card=replace(log.card, max_episode_steps=None)),
    ]  # fmt: skip
    assert [stops(one) for one in logs] == [{}] * len(logs)
    assert all(stops(one, own_steps()) == {} for one in (logs[0], logs[1], logs[2]))


def test_with_steps_of_the_task_dead_sensors_other_units_and_lost_rewards_are_seen(log):
    own = own_steps()
    dead = replace(log, obs=changed(log.obs, (slice(None), 0), 0.0), final_obs=changed(log.final_obs, (..., 0), 0.0))
    assert "in the task it changes" in stops(dead, own)["observations"]
    assert "observations" not in stops(dead)
    notes = [finding.text for finding in check_log(dead) if finding.verdict == "note"]
    assert "Component 0 of the observation is the same in all rows." in notes
    degrees = replace(log, obs=log.obs * np.float32(57.3), final_obs=log.final_obs * np.float32(57.3))
    assert "degrees are 57.3 times radians" in stops(degrees, own)["observations"]
    free = replace(log, reward=np.zeros_like(log.reward))
    assert "they were not recorded" in stops(free, own)["rewards"]
    assert "rewards" not in stops(free)


def test_the_previous_action_among_the_observations_is_a_note(log):
    before = moved(log.action[:, 0], log, 1)
    before[log.begins] = 0
    shown = np.concatenate([log.obs, before[:, None]], axis=1)
    final = np.concatenate([log.final_obs, log.action[log.ends - 1]], axis=1)
    card = replace(log.card, observation={"kind": "box", "shape": [3], "low": [None], "high": [None]})
    found = list(check_log(replace(log, obs=shown, final_obs=final, card=card)))
    assert [one.topic for one in found if one.verdict == "stop"] == []
    assert any("Component 2 of the observation is the previous action" in one.text for one in found)


def test_choices_are_checked_one_by_one(log):
    space = {"kind": "discrete", "count": 3}
    choices = np.digitize(log.action[:, 0], [-0.5, 0.5])
    chosen = replace(log, action=choices, card=replace(log.card, action=space))
    assert "actions" not in stops(chosen)
    assert "Actions are not among the 3 choices 0 to 2" in stops(replace(chosen, action=choices + 1))["actions"]
    assert "All actions are 1" in stops(replace(chosen, action=np.ones_like(choices)))["actions"]
    never = [one.text for one in check_log(replace(chosen, action=np.minimum(choices, 1))) if one.verdict == "note"]
    assert "Choice 2 was never taken: nothing is known of what it does." in never


def test_a_policy_without_noise_hides_where_its_actions_belong():
    """What comes next is told by the observation alone: no alignment is claimed, healthy or not."""
    log = cart(noise=0.0)
    assert acted_shift(LogFits(log)) == 0


def test_unexplained_shares_are_those_of_rows_that_were_not_fitted():
    rng = np.random.default_rng(0)
    x, luck = rng.normal(size=(4000, 2)), rng.normal(size=(4000, 1))
    shares = unexplained([x], np.concatenate([x[:, :1] * x[:, 1:], x[:, :1] + luck, luck], axis=1))
    assert shares[0] < 0.05
    assert shares[1] == pytest.approx(0.5, abs=0.05)
    assert 0.97 < shares[2] < 1.2  # a fit to luck is worse than nothing on other rows


def test_a_wall_is_no_gap():
    """Where something is hit, all components jump, and one is at its least or most."""
    dataset = cart(noise=1.0, seed=5, wall=-0.6)
    index, unlike = surprises(LogFits(dataset))
    hit = np.asarray(dataset.obs)[index + 1, 0] == np.float32(-0.6)
    assert 0 < hit.sum() < 10 and unlike[hit].max() > JUMP > 2 * unlike[~hit].max()
    assert stops(dataset) == {}


def test_what_a_log_can_support_is_said():
    said = " ".join(one.text for one in check_log(cart(noise=0.0)) if one.topic == "supports")
    assert "There is one action in a state" in said
    assert "100%" not in said.split("terminated by the task")[0][-6:]
    noisy = cart(noise=0.5)
    said = " ".join(one.text for one in check_log(noisy) if one.topic == "supports")
    assert "How likely each action was is not recorded" in said
    returns = noisy.returns()
    half = 1.96 * returns.std(ddof=1) / np.sqrt(60)
    assert f"is {returns.mean():,.4g} +- {half:,.3g} over 60 episodes" in said


def test_the_command_looks_at_the_task_of_the_card(tmp_path, capsys):
    log = make("CartPole-v1", "random", tmp_path / "log", steps=2500, threads=1)
    assert main(["dataset", "check", str(tmp_path / "log")]) == 0
    said = capsys.readouterr().out
    assert "No fault was found." in said and "2,500 steps" in said
    degrees = replace(log, obs=log.obs * [1, 1, 57.3, 57.3], final_obs=log.final_obs * [1, 1, 57.3, 57.3])
    write_log_folder(degrees, tmp_path / "degrees")
    assert main(["dataset", "check", str(tmp_path / "degrees")]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "Component 2, 3 of the first observations" in said and "1 fault: mend the log" in said
    unknown = replace(degrees, card=replace(degrees.card, task="elsewhere:Task-v0"))
    assert [one for one in check(unknown) if one.verdict == "stop"] == []
    assert any(one.verdict == "stop" for one in check(unknown, task="CartPole-v1"))


def test_a_log_of_another_task_is_refused(tmp_path, capsys):
    make("CartPole-v1", "random", tmp_path / "log", steps=100, threads=1)
    assert main(["dataset", "check", str(tmp_path / "log"), "--task", "Pendulum-v1"]) == 2
    assert "evaluate on the task that it was recorded on" in capsys.readouterr().err
