"""Read a run's metrics as they come, warn once of each thing, and keep the warnings in the run's folder."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.files import read_file, writing
from workhorse.core.records import parse, parse_json, read_value, unseal
from workhorse.core.spec import Box, EnvSpec
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import owner_of
from workhorse.runs.sealed import write_record
from workhorse.runs.warnings import learning, off_policy, offline, signals
from workhorse.runs.warnings.rule import Rows, Rule

__all__ = ["OTHER_RULES", "Warned", "Watch", "preflight", "read_warnings", "write_warnings"]


ACTION_SCALE = Rule(
    name="action-scale",
    meaning="The task's actions are of another size than those that the policy tries at first.",
    condition="half the width of an action's bounds is above 20 times, or below a twentieth of, exp(log_std)",
    misleads="bounds far wider than what the task takes; infinite bounds are not looked at",
    remedy="Set log_std to the logarithm of a third of the half-width, or scale the task's actions to [-1, 1].",
    source="Andrychowicz et al. 2021 (arXiv 2006.05990), who recommend an initial standard deviation of .5",
    cost="nothing: bounds and a setting, looked at before the first iteration",
)
OUTLIER_SEED = Rule(
    name="outlier-seed",
    meaning="One seed of a study stands apart from the others.",
    condition="its score is further from the median of 5 or more seeds than 5 / .6745 median absolute deviations",
    misleads="by chance, in 4 of a hundred studies of ten seeds, and of scores that come in two clusters",
    remedy="Look at the seed's page and its warnings first. It is a result and stays in all statistics.",
    source="Iglewicz and Hoaglin 1993, who have 3.5 for our 5; Bjorck et al. 2021 (arXiv 2110.11222) on outlying runs",
    cost="nothing: the scores of a study, on its page and when `workhorse study` ends",
)
OTHER_RULES = (ACTION_SCALE, OUTLIER_SEED)
"""Rules about something else than a run's metrics: its start, and the runs of a study."""


@dataclass(frozen=True)
class Warned:
    """Warning that was given.

    Attributes:
        name: of the rule.
        iteration, env_steps: when; 0 for a warning before the first iteration.
        sentence: what was seen.
        remedy: what to do.
    """

    name: str
    iteration: int
    env_steps: int
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"Warning at iteration {self.iteration:,}, {self.name}: {self.sentence}. {self.remedy}"


class Watch:
    """Reader of a run's metrics that gives each warning once.

    Example:
        >>> watch = Watch({"max_kl": 0.01})
        >>> for number in range(1, 6):
        ...     found = watch.see({"iteration": number, "env_steps": 100 * number, "mean_kl": 0.5})
        ...     if found:
        ...         print(found[0].name, found[0].iteration)
        trust-region 3
    """

    def __init__(self, settings: Mapping[str, object], rules: Sequence[Rule] | None = None) -> None:
        self.given: list[Warned] = []
        self._rows = Rows(settings)
        self._rules = tuple(
            [*signals.RULES, *learning.RULES, *off_policy.RULES, *offline.RULES] if rules is None else rules
        )
        self._held = dict.fromkeys((rule.name for rule in self._rules), 0)

    def see(self, row: Mapping[str, float]) -> list[Warned]:
        """Return the new warnings that an iteration's metrics bring."""
        self._rows.append(row)
        new = []
        for rule in self._rules:
            if self._held[rule.name] < 0:
                continue  # given already
            sentence = rule.judge(self._rows) if rule.judge else None
            self._held[rule.name] = 0 if sentence is None else self._held[rule.name] + 1
            if sentence is not None and self._held[rule.name] >= rule.persistence:
                self._held[rule.name] = -1
                new.append(Warned(rule.name, int(row["iteration"]), int(row["env_steps"]), sentence, rule.remedy))
        self.given += new
        return new

    def begin(self, warnings: Sequence[Warned]) -> None:
        """Add what was seen before the first iteration."""
        self.given = [*warnings, *self.given]


def write_warnings(folder: RunFolder, given: Sequence[Warned]) -> None:
    """Write the warnings of a run to warnings.json in its folder.

    Raises:
        UsageError: the disk is full, read-only, or not there.
    """
    with writing("the warnings", folder.path):
        write_record(
            folder.path / "warnings.json", {"warnings": [asdict(warned) for warned in given]}, owner=owner_of(folder)
        )


def read_warnings(folder: RunFolder, noted: Callable[[str], None] = lambda sentence: None) -> list[Warned]:
    """Return the warnings of a run; none where the file is missing or cannot be read.

    Args:
        folder: of the run.
        noted: is told, in a sentence, of a file that cannot be read.
    """
    file, remedy = folder.path / "warnings.json", "The run goes on without it; `workhorse warnings` finds them again"
    try:
        content = read_file(file)
        if content.startswith(b"["):  # from before checksums were kept
            content = b'{"warnings": ' + content + b"}"
        record = unseal(
            parse(parse_json, content, file, "warnings in JSON", f"{remedy}."), file, remedy, owner_of(folder)
        )
        return list(read_value(tuple[Warned, ...], record.get("warnings"), "`warnings`", str(file), f"{remedy}."))
    except FileNotFoundError:
        return []
    except UsageError as error:
        noted(str(error))
        return []


def preflight(spec: EnvSpec, settings: Mapping[str, object], obs: np.ndarray) -> list[Warned]:
    """Return warnings about the scales of actions and observations, before training starts.

    Args:
        spec: the task's.
        settings: of the algorithm.
        obs: of every slot after its reset, (B, D).
    """
    found = []
    action, log_std = spec.action, settings.get("log_std")
    if isinstance(action, Box) and isinstance(log_std, float | int):
        half = (np.asarray(action.high) - np.asarray(action.low)) / 2
        half, std = half[np.isfinite(half)], math.exp(log_std)
        if len(half) and (half.max() > 20 * std or half.min() < std / 20):
            worst = half.max() if half.max() > 20 * std else half.min()
            sentence = (
                f"an action's bounds are {worst:.3g} to either side, and the policy begins with a standard deviation "
                f"of {std:.3g}"
            )
            found.append(Warned(ACTION_SCALE.name, 0, 0, sentence, ACTION_SCALE.remedy))
    scale = float(np.abs(obs).max(initial=0.0))
    if not settings.get("normalise_observations", True) and scale > 20:
        sentence = f"an observation after a reset is as large as {scale:.3g}, and observations are not normalised"
        rule = next(rule for rule in signals.RULES if rule.name == "observation-scale")
        found.append(Warned(rule.name, 0, 0, sentence, rule.remedy))
    return found
