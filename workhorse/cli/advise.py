"""`workhorse advise TASK`."""

import dataclasses
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from workhorse.api.tasks import check_task
from workhorse.cli.environment_options import EnvironmentOptions, task_options_of
from workhorse.cli.options import parse
from workhorse.core.errors import UsageError

if TYPE_CHECKING:  # imported by the functions below, so that help needs no simulator
    from workhorse.advice.advise import Advice

__all__ = ["run"]

WIDTH = 80


@dataclasses.dataclass
class AdvisedTask:
    """The task that advice is asked on."""

    task: tyro.conf.Positional[str | None] = None
    """The task, a Gymnasium id, or module:id for one of your own."""


@dataclasses.dataclass
class AdviseOptions(EnvironmentOptions, AdvisedTask):
    """Measure a task for about a minute, and say what should be tried on it, and what will probably not work.

    The forecast is kept; with --score those that were kept are scored against the runs that exist by then.
    """

    budget: float = 60.0
    """Seconds after which no further probe is begun."""
    simulator_available: Literal["yes", "no"] = "yes"
    """Whether there is a simulator that can be put into any state: no, where the task stands for a real plant."""
    step_price: float = 0.0
    """Price of one environment step of the real plant, in any currency."""
    score: bool = False
    """Score the forecasts that were kept, instead of making one."""
    seed: int = 0
    """Seed of all draws."""
    threads: int = 0
    """Simulation threads; 0 uses one for each core."""
    folder: str = "forecasts"
    """Folder in which forecasts are kept."""
    runs: str = "runs"
    """Folder of the runs by which forecasts are scored."""


def run(arguments: Sequence[str]) -> int:
    """Advise on a task, or score earlier advice, and return the exit code."""
    options = parse(AdviseOptions, arguments)
    if options.score:
        return _score(options)
    if options.task is None:
        raise UsageError("Expected a task, as in `workhorse advise CartPole-v1`, or --score.")
    task_options = task_options_of(options)
    if not options.step_price >= 0:  # before a minute is spent
        raise UsageError(f"The price of a step must be at least 0: got {options.step_price!r}.")
    check_task(options.task)
    from workhorse.advice.advise import advice_on, save_forecast
    from workhorse.advice.probe import probe_task

    has_simulator = options.simulator_available == "yes"
    card = probe_task(
        options.task,
        task_options,
        budget_s=options.budget,
        simulator_available=has_simulator,
        threads=options.threads,
        seed=options.seed,
        told=lambda probe: print(f"  measuring: {probe} ...", flush=True),
    )
    advice = advice_on(card, simulator_available=has_simulator, step_price=options.step_price)
    print("\n" + "\n".join(_said(advice, options.step_price)))
    kept = save_forecast(advice, Path(options.folder))
    print(f"\nThe forecast is kept as {kept}; `workhorse advise --score` scores it once there are runs.")
    return 0


_ANSWERS = {
    "simple": "Do not learn. A rule, linear control or a search of linear policies will probably do.",
    "plan": "Do not learn. Plan with the simulator.",
    "es": "Learn with evolution strategies: nothing cheaper will probably do, and they will.",
    "gradient": "Learn with policy gradients: nothing cheaper will probably do, and they will.",
    "none": "It will probably not work, with anything that Workhorse has.",
}
_CLASS_WORDS = {
    "simple": "rule, linear control, search",
    "plan": "plan with the simulator",
    "es": "evolution strategies",
    "gradient": "policy gradients, replay",
}


def _said(advice: "Advice", step_price: float) -> Iterator[str]:
    """Yield the lines of advice."""
    from workhorse.advice.forecast import RETURNS
    from workhorse.advice.probe import MEASURES
    from workhorse.reports.wording import amount_text, cost_texts, hours_text, number_text, steps_text

    options = "".join(f"  {name}={value}" for name, value in advice.options.items())
    yield f"{advice.task}{options}: {_ANSWERS[advice.answer]}"
    known = {name: advice.numbers[name] for name in RETURNS if name in advice.numbers}
    if known:
        best = max(known, key=lambda name: known[name])
        yield f"The best that was seen: {number_text(known[best])}, {MEASURES[best]}."
    yield f"\nMeasured in {advice.seconds:.0f} s:"
    for name, words in MEASURES.items():
        if name in advice.numbers:
            yield f"  {number_text(advice.numbers[name]):>10}  {words}"
    for name, reason in advice.skipped.items():
        yield from textwrap.wrap(f"{name}: left out; {reason}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    yield f"\n  {'way':<31}{'works':>6}{'steps':>9}{'core time':>19}  money"
    note = ""
    for way in advice.ways:
        money, hours = "unknown", "unknown"
        if way.core_s:
            money, _, note = cost_texts(way.ledger)["money"].partition(" (")
            hours = hours_text(way.ledger.core_hours)
        if step_price:
            money = f"{amount_text(way.price)} for steps, {money}"
        yield f"  {_CLASS_WORDS[way.group]:<31}{way.chance:>6.0%}{steps_text(way.env_steps):>9}{hours:>19}  {money}"
    if note:
        yield f"  Money is {note.removesuffix(')')}."
    chosen = advice.chosen or max(advice.ways, key=lambda way: way.chance)
    yield f"\nWhy ({_CLASS_WORDS[chosen.group]}):"
    for words, change in chosen.movers:
        yield f"  {'for' if change > 0 else 'against':<8} {words} ({change:+.1f} in log odds)"
    yield "\nTo type, and to prove this wrong:"
    for way in advice.ways:
        yield f"  {way.command}"
    if advice.numbers.get("repeatable") == 0:
        said = (
            f"{advice.task} draws randomness outside its seed: two branches from one snapshot, with the same actions, "
            "came out differently. Plans and look-ahead cannot be trusted there; draw it from the key of the step."
        )
        yield from ["", *textwrap.wrap(said, WIDTH)]
    if any(math.isinf(value) for value in advice.numbers.values()):
        yield "\nAn infinite number of steps: random play met no such reward at all."


def _score(options: AdviseOptions) -> int:
    from workhorse.advice.advise import read_forecast
    from workhorse.advice.scoring import brier_score, score_forecasts, trials_in
    from workhorse.core.files import list_folder
    from workhorse.reports.forecast_page import write_forecast_page

    root = Path(options.folder)
    files = sorted(list_folder(root, "*.json")) if root.is_dir() else []
    if not files:
        raise UsageError(f"There is no forecast in {root}: `workhorse advise TASK` makes one.")
    forecasts = []
    for file in files:
        try:
            forecasts.append(read_forecast(file))
        except UsageError as error:
            print(error)
    rows = score_forecasts(forecasts, trials_in(options.runs))
    if not rows:
        print(f"{len(forecasts)} forecasts, and no finished run in {options.runs} of any of their tasks yet.")
        return 0
    chances, came = [row.chance for row in rows], [row.came for row in rows]
    usual = sum(came) / len(came)
    print(f"{len(rows)} forecasts of a class on a task can be judged, of {len(forecasts)} tasks' cards.")
    constant = brier_score([usual] * len(came), came)
    print(f"  Brier score {brier_score(chances, came):.3f}; a constant {usual:.2f} has {constant:.3f}")
    wrong = [row for row in rows if row.is_wrong]
    print(f"  {len(rows) - len(wrong)} of {len(rows)} were on the right side of one half")
    for row in wrong:
        said = f"{row.chance:.0%}, and it {'worked' if row.came else 'did not work'} ({', '.join(row.runs)})"
        print(f"  wrong: {row.advice.task}, {_CLASS_WORDS[row.group]}: {said}")
    print(f"\nThe page is {write_forecast_page(rows, root)}")
    return 0
