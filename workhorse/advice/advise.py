"""Advice on a task: a forecast for each class of approaches, its price, the commands to type, and why."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workhorse.advice.forecast import features, read_model
from workhorse.advice.labels import CLASSES
from workhorse.advice.probe import SIGN_STEPS, TaskCard
from workhorse.algorithms.recipes import recipe
from workhorse.core.errors import UsageError
from workhorse.core.files import read_file, write_file, writing
from workhorse.core.machine import describe_hardware
from workhorse.runs.cost import Ledger

__all__ = ["Advice", "Way", "advice_on", "read_forecast", "save_forecast"]

WITHOUT_RECIPE = 300_000
"""Environment steps that a learner is taken to need on a task for which there is no recipe."""
SIMPLE_STEPS = 300_000
LIKELY = 0.5
"""Probability from which on a way is recommended."""

_FEATURE_WORDS = {
    "simple": "what rules, guessing, climbing, PID and linear control reached",
    "climb": "what guessing and climbing reached",
    "look_ahead": "what one step of look-ahead over random play reached",
    "es": "what a few steps of evolution strategies reached",
    "gradient": "what a few steps of policy gradients reached",
    "plan": "what planning with the simulator reached",
    "reach": "how many steps ahead an action matters",
    "reward_seen": "how often random play meets a reward",
}


@dataclass(frozen=True)
class Way:
    """A class of approaches, as it is forecast for a task.

    Attributes:
        group: simple, plan, es or gradient.
        chance: that it works, in [0, 1].
        env_steps: simulator steps that it is taken to need.
        core_s: core-seconds likewise, from the speed measured here.
        price: of its steps, where a step has one.
        command: to type.
        movers: what moved the forecast most, in words, with the change of its log odds.
    """

    group: str
    chance: float
    env_steps: int
    core_s: float
    price: float
    command: str
    movers: tuple[tuple[str, float], ...]

    @property
    def ledger(self) -> Ledger:
        """The core time that it is taken to need."""
        return Ledger().charge(describe_hardware().cpu, 1, self.core_s)


@dataclass(frozen=True)
class Advice:
    """A forecast that can be scored later.

    Attributes:
        task, options: which task.
        made: when, in UTC.
        numbers: of the task's card.
        skipped: probes that were left out, and why.
        seconds: that the probes took.
        simulator_available: as the user said.
        ways: the forecasts, the cheapest class first.
        answer: the class that is recommended, or none.
    """

    task: str
    options: Mapping[str, Any]
    made: str
    numbers: Mapping[str, float]
    skipped: Mapping[str, str]
    seconds: float
    simulator_available: bool
    ways: tuple[Way, ...]
    answer: str

    @property
    def chosen(self) -> Way | None:
        """The way that is recommended; None where none is."""
        return next((way for way in self.ways if way.group == self.answer), None)


def advice_on(card: TaskCard, *, simulator_available: bool = True, step_price: float = 0.0) -> Advice:
    """Return advice from what was measured of a task.

    The recommended way is the cheapest of those that more likely work than not: by price, where a step of the user's
    plant has one, else in the order simple, plan, es, gradient.

    Args:
        card: of the task.
        simulator_available: whether planning is a way at all.
        step_price: of an environment step outside the simulator, in any currency.

    Raises:
        UsageError: the price is negative, or there is no model.
    """
    if not step_price >= 0:
        raise UsageError(f"The price of a step must be at least 0: got {step_price!r}.")
    model = read_model()
    if model is None:
        raise UsageError(
            "There is no forecast model, workhorse/advice/forecast.json: `python bench/adviser.py fit` makes it."
        )
    found = features(card.numbers)
    chances = model.probabilities(found)
    ways = []
    for group in CLASSES:
        if group not in chances or (group == "plan" and not simulator_available):
            continue
        steps, seconds, command = _price(card, group)
        movers = tuple((_FEATURE_WORDS[name], change) for name, change in model.movers(found, group))
        ways.append(Way(group, chances[group], steps, seconds, steps * step_price, command, movers))
    likely = [way for way in ways if way.chance >= LIKELY]
    chosen = min(likely, key=lambda way: way.price) if step_price and likely else next(iter(likely), None)
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Advice(
        card.task,
        dict(card.options),
        made,
        dict(card.numbers),
        dict(card.skipped),
        card.seconds.get("all", 0.0),
        simulator_available,
        tuple(ways),
        "none" if chosen is None else chosen.group,
    )


def _price(card: TaskCard, group: str) -> tuple[int, float, str]:
    """Return steps, core-seconds and the command of a class, from the recipe and the speed that was measured."""
    task = f"{card.task}{''.join(f' --task-option {name}={_typed(value)}' for name, value in card.options.items())}"
    if group == "simple":
        seconds = sum(card.seconds.get(name, 0.0) for name in ("guessing", "basins", "linear control", "rules", "pid"))
        return SIMPLE_STEPS, seconds, f"workhorse rivals {task}"
    if group == "plan":
        planner = "categorical-cem" if "plan_return" not in card.numbers and card.numbers["action_size"] > 1 else "mppi"
        return 0, card.seconds.get("planning", 0.0), f"workhorse rivals {task} --only {planner}"
    algorithm, probe = {"es": ("openai-es", "evolution strategies"), "gradient": ("ppo", "policy gradients")}[group]
    known = recipe(card.task, algorithm)
    steps = WITHOUT_RECIPE if known is None else int(known.env_steps)
    seconds = card.seconds.get(probe, 0.0) * steps / card.numbers.get("sign_steps", SIGN_STEPS[0])
    return steps, seconds, f"workhorse train {task} --algorithm {algorithm} --env-steps {steps}"


def _typed(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool | list | tuple) else str(value)


def save_forecast(advice: Advice, root: Path) -> Path:
    """Keep advice, so that it can be scored once runs exist."""
    name = f"{advice.made.replace(':', '')}-{advice.task.replace(':', '-').replace('/', '-')}"
    record = {**vars(advice), "ways": [vars(way) for way in advice.ways]}
    for place in range(1000):
        file = root / f"{name}{f'-{place}' if place else ''}.json"
        if not file.exists():
            break
    with writing("the forecast", file):
        root.mkdir(parents=True, exist_ok=True)
        write_file(file, (json.dumps(_finite(record), indent=1, default=str) + "\n").encode())
    return file


def read_forecast(file: Path) -> Advice:
    """Read advice that was kept.

    Raises:
        UsageError: the file is damaged.
    """
    try:
        row = json.loads(read_file(file))
        numbers = {name: float(value) for name, value in row["numbers"].items()}
        ways = tuple(Way(**{**way, "movers": tuple(map(tuple, way["movers"]))}) for way in row["ways"])
        return Advice(**{**row, "numbers": numbers, "ways": ways})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{file} is no forecast ({error}): move it away, and advise again.") from None


def _finite(value: Any) -> Any:
    """Return JSON without numbers that are not finite, which strict JSON has none of: they become text."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and value - value != 0 else value
