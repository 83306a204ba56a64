"""Causal confusion: `python bench/confusion.py mountain-car|cart-pole|hopper|pong|figure [--expert RUN] [--into FILE]`.

For each seed: demonstrations of an expert, cloned without and with the previous action in the observation (and with a
random one in its place, on the classic tasks); the return of each; then a masked policy and at most 20 interventions,
by episodes with their return or by questions to the expert; and a policy cloned from the factors that were chosen.
Drop: (without - with) / |without|, or divided by what is above the floor, the return of a policy that learns nothing;
both of plain cloning and of the one masked network. Recovered: (chosen - with) / (without - with). All of the means
over the seeds, with an interval by the bootstrap over seeds. A task takes a few minutes on one core.

MountainCar: the expert pushes along its velocity, a = 2 if v >= 0 else 0, and looks at it only once in `hold` steps on
average: between looks it repeats its action, as a person who takes a while to react. `hold` and the number of
demonstrated steps are swept. CartPole: the same, of an expert that pushes towards where the pole falls.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from record import head

from workhorse.algorithms import registry as algorithms
from workhorse.core.addresses import host_generator, host_keys
from workhorse.data.dataset import Dataset
from workhorse.data.nuisance import with_previous_action
from workhorse.environments import registry
from workhorse.environments.actions import random_actions
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.protocol import HostEnv
from workhorse.runs.policy import Policy
from workhorse.statistics.intervals import mean_interval
from workhorse.training.interventions import by_execution, by_queries
from workhorse.training.masked_policies import fitted, play, split_rows, visit

RESULT = Path(__file__).parent / "results" / "confusion.json"
IMAGE = Path(__file__).parent.parent / "docs" / "images" / "causal_confusion.png"
INTERVENTIONS, EPISODES = 20, 16

# Worker processes of the Gymnasium adapter look for pong_ram there.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])


class Case(NamedTuple):
    """One kind of demonstrations.

    Attributes:
        task, options: where they are made.
        steps: demonstrated, that are learnt from.
        hold: mean steps between two looks of the expert.
        factors: of the state.
        settings: of the fits.
        updates: of each.
        seeds: how many.
        floor: return of a policy that learns nothing.
    """

    task: str
    options: dict[str, Any]
    steps: int
    hold: float
    factors: tuple[int, ...]
    settings: dict[str, Any]
    updates: int
    seeds: int
    floor: float


Expert = Callable[[np.ndarray], np.ndarray]


def demonstrations(case: Case, expert: Expert, steps: int, seed: int, stream: str) -> Dataset:
    """Return whole episodes of the expert, at least this many steps in all."""
    env = as_batch(registry.make(case.task, 1, 1, **case.options), 1)
    rng = host_generator(host_keys(seed, stream, 2**20))
    columns: dict[str, list[Any]] = {name: [] for name in ("obs", "action", "reward", "terminated", "truncated")}
    final, begins, episode = [], [], 0
    while len(columns["reward"]) < steps:
        obs, action, is_over = env.reset(episode_keys(env, seed, stream, episode, np.arange(1))), None, False
        begins.append(len(columns["reward"]))
        while not is_over:
            if action is None or rng.random() < 1 / case.hold:
                action = np.asarray(expert(obs))
            step = env.step(action)
            row = (obs[0], action[0], step.reward[0], step.terminated[0], step.truncated[0])
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            obs, is_over = step.next_obs, bool(step.terminated[0] or step.truncated[0])
        final.append(obs[0])
        episode += 1
    env.close()
    arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
    return Dataset.of(
        case.task, env.spec.observation, env.spec.action, task=case.task,
        max_episode_steps=env.spec.max_episode_steps, final_obs=np.array(final), begins=np.array(begins), **arrays,
    )  # fmt: skip


def cut(log: Dataset, steps: int) -> Dataset:
    """Return the first steps of a log; the last episode is cut off."""
    if log.num_steps <= steps:
        return log
    begins = log.begins[log.begins < steps]
    final = np.array([*log.final_obs[: len(begins) - 1], log.next_obs(np.array([steps - 1]))[0]])
    columns = {name: getattr(log, name)[:steps] for name in ("obs", "action", "reward", "terminated", "truncated")}
    return Dataset.of(
        log.card.name, log.observation, log.action_space, task=log.card.task,
        max_episode_steps=log.card.max_episode_steps, task_options=log.card.task_options, final_obs=final,
        begins=begins, **columns,
    )  # fmt: skip


def measured(case: Case, expert: Expert, seed: int) -> dict[str, Any]:
    """Measure one seed."""
    begun = time.process_time()
    shown = {"previous_action": True}
    learnt = cut(demonstrations(case, expert, case.steps, seed, "reset"), case.steps)
    judged = demonstrations(case, expert, 1000, seed, "evaluate")
    many, one = (as_batch(registry.make(case.task, n, 1, **case.options, **shown), n) for n in (EPISODES, 1))
    spec = many.spec
    size = {"factors": (*case.factors, spec.observation.size - sum(case.factors))}
    masked: Any = algorithms.make("masked-bc", spec, {**case.settings, **size})
    plain: Any = algorithms.make("masked-bc", spec, {**case.settings, **size, "seen_share": 1.0})
    count = len(size["factors"])
    rows, rest = (split_rows(masked, with_previous_action(log), np.zeros(0, int))[0] for log in (learnt, judged))

    def returned(policies: Any, mask: np.ndarray, env: HostEnv = many) -> float:
        keys = episode_keys(env, seed, "evaluate", 0, np.arange(EPISODES))
        return float(play(policies, env, np.repeat(mask[None], EPISODES, 0).astype(np.float32), keys).mean())

    known: dict[tuple[int, ...], float] = {}

    def cloned(mask: np.ndarray) -> float:
        key = tuple(int(one) for one in mask)
        if key not in known:
            known[key] = returned(fitted(plain, rows, rest, case.updates, seed, mask), mask)
        return known[key]

    everything, state = np.ones(count), np.array([*[1] * (count - 1), 0])
    policies = fitted(masked, rows, rest, case.updates, seed)
    losses = policies.losses(np.array([state, everything]))
    rngs = [host_generator(key) for key in host_keys(seed, "intervene", 0, np.arange(2))]
    acted = by_execution(
        lambda mask, number: float(play(policies, one, mask[None], _keys(one, seed, 1, number))[0]),
        count, INTERVENTIONS, rngs[0],
    )  # fmt: skip
    own = sum(case.factors)
    asked = by_queries(
        policies, policies.masks, lambda mask, number: visit(policies, one, mask, _keys(one, seed, 2, number)),
        lambda obs: expert(obs[:, :own]), INTERVENTIONS, rngs[1],
    )  # fmt: skip
    found = {
        "expert": float(judged.returns().mean()), "repeats": float((learnt.action[1:] == learnt.action[:-1]).mean()),
        "loss_without": float(losses[0]), "loss_with": float(losses[1]),
        "without": cloned(state), "with": cloned(everything),
        "masked_with": returned(policies, everything), "masked_without": returned(policies, state),
        "by_episodes": cloned(acted.mask), "by_answers": cloned(asked.mask),
        "masks": [acted.mask.tolist(), asked.mask.tolist()],
        "posterior": [float(one) for one in asked.chances.max(1)],
    }  # fmt: skip
    if case.task in ("MountainCar-v0", "CartPole-v1"):
        found["random"] = _random_control(case, learnt, judged, plain, seed)
    many.close()
    one.close()
    return found | {"cpu_s": time.process_time() - begun}


def _random_control(case: Case, learnt: Dataset, judged: Dataset, plain: Any, seed: int) -> float:
    """Return the return of cloning that sees a random action in place of the previous one."""
    env = as_batch(registry.make(case.task, EPISODES, 1, **case.options, previous_action="random"), EPISODES)
    rng = np.random.default_rng(seed)
    told = [
        with_previous_action(log, random_actions(log.action_space, (log.num_steps,), rng)) for log in (learnt, judged)
    ]
    rows, rest = (split_rows(plain, log, np.zeros(0, int))[0] for log in told)
    policies = fitted(plain, rows, rest, case.updates, seed)
    masks = np.ones((EPISODES, len(plain.factor_sizes)), np.float32)
    return float(play(policies, env, masks, episode_keys(env, seed, "evaluate", 0, np.arange(EPISODES))).mean())


def _keys(env: HostEnv, seed: int, purpose: int, number: int) -> np.ndarray:
    return episode_keys(env, seed, "intervene", purpose, number, np.arange(1))


def summary(case: Case, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the seeds with Student's intervals, and the two ratios with the bootstrap's."""
    names = [name for name, value in seeds[0].items() if isinstance(value, float)]
    table = {name: np.array([one[name] for one in seeds]) for name in names}
    means = {}
    for name, values in table.items():
        interval = mean_interval(values)
        means[name] = [float(interval.value), float(interval.low), float(interval.high)]
    rng = np.random.default_rng(0)
    draws = [np.arange(len(seeds)), *rng.integers(len(seeds), size=(2000, len(seeds)))]
    found = [
        _ratios({name: float(values[rows].mean()) for name, values in table.items()}, case.floor) for rows in draws
    ]
    drawn = {name: [one[name] for one in found] for name in found[0]}
    told = {
        name: [float(values[0]), *(float(end) for end in np.nanpercentile(values[1:], [2.5, 97.5]))]
        for name, values in drawn.items()
    }
    ratios = {name: [None if np.isnan(value) else value for value in values] for name, values in told.items()}
    return {"case": case._asdict(), "means": means, "ratios": ratios, "seeds": seeds}


def _ratios(means: dict[str, float], floor: float) -> dict[str, float]:
    """Return drops and what was recovered of them, of plain cloning and of the masked network; NaN without a drop."""
    found: dict[str, float] = {}
    for kind, without, shown in (
        ("plain", means["without"], means["with"]),
        ("masked", means["masked_without"], means["masked_with"]),
    ):
        gap = without - shown
        found[f"{kind}_drop"] = gap / abs(without)
        found[f"{kind}_drop_above_floor"] = gap / (without - floor) if without > floor else np.nan
        for name in ("episodes", "answers"):
            found[f"{kind}_recovered_by_{name}"] = (means[f"by_{name}"] - shown) / gap if gap > 0 else np.nan
    return found


def mountain_car() -> tuple[list[Case], Expert]:
    """Return the cases, and the expert."""
    settings = {"hidden": (50, 50, 50), "batch_size": 64}
    base = Case("MountainCar-v0", {}, 1000, 10, (1, 1), settings, 5000, 10, -200.0)
    fewer = base._replace(seeds=5)
    cases = [base, *(fewer._replace(steps=steps) for steps in (3000, 300, 100))]
    cases += [fewer._replace(hold=hold) for hold in (1, 6, 3, 16)]
    cases += [fewer._replace(hold=6, steps=3000)]
    return cases, lambda obs: np.where(obs[:, 1] >= 0, 2, 0)


def cart_pole() -> tuple[list[Case], Expert]:
    """Return the cases, and an expert that pushes towards where the pole falls and the cart drifts."""
    settings = {"hidden": (50, 50, 50), "batch_size": 64}
    base = Case("CartPole-v1", {}, 3000, 3, (1, 1, 1, 1), settings, 5000, 10, 22.0)
    cases = [base, *(base._replace(hold=hold, seeds=5) for hold in (1, 1.5, 2))]
    return cases, lambda obs: (obs @ np.array([0.05, 0.1, 1.0, 0.5]) > 0).astype(np.int64)


def hopper(run: str) -> tuple[list[Case], Expert]:
    """Return the cases, and the expert."""
    policy = Policy.load(run)
    settings = {"hidden": (128, 128), "batch_size": 128}
    base = Case("Hopper-v5", {}, 4000, 1, (11,), settings, 10_000, 5, 18.0)
    return [base, base._replace(steps=1000)], lambda obs: policy.choose(obs.astype(np.float32))[0]


def pong() -> tuple[list[Case], Expert]:
    """Return the cases, and the expert; the first 600 steps of a game, with the emulator's sticky actions."""
    from pong_ram import tracker

    options = {"obs_type": "ram", "wrappers": ["pong_ram:RamFeatures"], "max_episode_steps": 600}
    settings = {"hidden": (64, 64), "batch_size": 128}
    base = Case("ale_py:ALE/Pong-v5", options, 3000, 1, (1, 1, 2, 1, 1), settings, 10_000, 3, -11.0)
    return [base], tracker


def figure(kept: dict[str, Any], path: Path) -> None:
    """Draw MountainCar's sweeps, and the return of each policy on all tasks."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = list(kept["cases"].values())
    drawn = {
        "without": ("without the previous action", "#00796b"), "with": ("with it", "#c2185b"),
        "by_episodes": ("chosen by <= 20 episodes", "#ef6c00"), "by_answers": ("chosen by <= 20 answers", "#5e35b1"),
    }  # fmt: skip
    car = [one for one in cases if one["case"]["task"] == "MountainCar-v0"]
    others = [one for one in cases if one["case"]["task"] != "MountainCar-v0"]
    shown = plt.subplots(1, 2 + len(others), figsize=(4.4 * (2 + len(others)), 3.4), layout="constrained")
    picture, axes = shown[0], np.atleast_1d(shown[1])
    sweeps = {"steps": ("hold", 10, "demonstrated steps"), "hold": ("steps", 1000, "steps between two looks")}
    for panel, (swept, (other, fixed, words)) in zip(axes, sweeps.items(), strict=False):
        rows = sorted((one for one in car if one["case"][other] == fixed), key=lambda one: one["case"][swept])
        x = [one["case"][swept] for one in rows]
        for name, (label, colour) in drawn.items():
            values = np.array([one["means"][name] for one in rows])
            panel.fill_between(x, np.maximum(values[:, 1], -200), values[:, 2], color=colour, alpha=0.15, lw=0)
            panel.plot(x, values[:, 0], "o-", color=colour, label=label, markersize=4)
        panel.set(title=f"MountainCar-v0, {other} {fixed}", xlabel=words, ylabel="return", xscale="log")
        panel.set_xticks(x, [str(one) for one in x])
        panel.minorticks_off()
    axes[0].legend(fontsize=7, frameon=False)
    dots = drawn | {
        "masked_without": ("one masked network, without", "#00796b"),
        "masked_with": ("one masked network, with it", "#c2185b"),
    }  # fmt: skip
    for panel, one in zip(axes[2:], others, strict=True):
        for place, (name, (_, colour)) in enumerate(dots.items()):
            value, low, high = one["means"][name]
            ends = [[value - low], [high - value]]
            panel.errorbar(value, -place, xerr=ends, fmt="s" if "masked" in name else "o", color=colour, capsize=3)
        title = f"{one['case']['task'].split(':')[-1]}, hold {one['case']['hold']:g}, {one['case']['seeds']} seeds"
        panel.set(title=title, xlabel="return")
        panel.set_yticks(-np.arange(len(dots)), [label for label, _ in dots.values()], fontsize=8)
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=110)


def main() -> None:
    """Measure the cases of one task, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("mountain-car", "cart-pole", "hopper", "pong", "figure"))
    parser.add_argument("--expert", default="runs/hopper-sac-n", help="run whose policy is Hopper's expert")
    parser.add_argument("--cases", type=int, nargs="*", help="numbers of the cases to measure; all by default")
    parser.add_argument("--into", type=Path, default=RESULT)
    options = parser.parse_args()
    kept = json.loads(options.into.read_text()) if options.into.exists() else {}
    if options.task == "figure":
        figure(kept, IMAGE)
        return
    if options.task == "pong" and importlib.util.find_spec("ale_py") is None:
        sys.exit("Pong is left out: it needs the package ale-py.")
    makers = {
        "mountain-car": mountain_car,
        "cart-pole": cart_pole,
        "hopper": lambda: hopper(options.expert),
        "pong": pong,
    }
    cases, expert = makers[options.task]()
    for number in options.cases or range(len(cases)):
        case = cases[number]
        found = summary(case, [measured(case, expert, seed) for seed in range(case.seeds)])
        told = {name: [None if one is None else round(one, 3) for one in row] for name, row in found["ratios"].items()}
        means = {name: round(values[0], 3) for name, values in found["means"].items()}
        print(case.task, case.steps, case.hold, means, told, flush=True)
        kept |= head("python bench/confusion.py mountain-car; python bench/confusion.py hopper --expert RUN")
        kept.setdefault("cases", {})[f"{options.task} {case.steps} {case.hold}"] = found
        options.into.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
