"""What the columns of a run's metrics mean, in words, and what they are called in TensorBoard and Weights & Biases.

The words are in `metrics.toml`. A column that is not there is an algorithm's own, and is named after itself.
"""

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["HELD_OUT", "Metric", "Reference", "describe", "groups", "known_metrics", "tagged"]

HELD_OUT = "held_out_"
"""Beginning of the names of what is measured on slots that are never trained on."""


@dataclass(frozen=True)
class Reference:
    """A value to compare a metric with.

    Attributes:
        words: what it is.
        value: the value itself, or what is added to that of `setting`.
        setting: the setting of the algorithm that holds it; empty for none.
        unless: a setting of the algorithms to which it does not apply.
    """

    words: str
    value: float = 0.0
    setting: str = ""
    unless: str = ""

    def of(self, settings: Mapping[str, Any]) -> float | None:
        """Return the value in a run with these settings; None where it has none.

        Example:
            >>> clip = Reference("clip", 1.0, "ratio_clip")
            >>> clip.of({"ratio_clip": 0.2}), clip.of({"ratio_clip": None}), clip.of({})
            (1.2, None, None)
        """
        if self.unless in settings:
            return None
        if not self.setting:
            return self.value
        found = settings.get(self.setting)
        if not isinstance(found, int | float) or isinstance(found, bool):
            return None
        return found + self.value


@dataclass(frozen=True)
class Metric:
    """A column of metrics.parquet; see the head of `metrics.toml` for the fields."""

    name: str
    group: str
    title: str
    unit: str = ""
    meaning: str = ""
    tag: str = ""
    sent: str = ""
    missing: str = ""
    beside: str = ""
    label: str = ""
    shown: tuple[float, float] = (-math.inf, math.inf)
    lines: tuple[Reference, ...] = ()


@functools.cache
def _file() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("metrics.toml").read_text(encoding="utf-8"))


def groups() -> Mapping[str, str]:
    """Return the groups of metrics in the order of a run's page, with their titles."""
    return _file()["groups"]


@functools.cache
def known_metrics() -> Mapping[str, Metric]:
    """Return the metrics that Workhorse has words for, by the name of their column."""
    return {name: _read(name, words) for name, words in _file().items() if name != "groups"}


def _read(name: str, words: Mapping[str, Any]) -> Metric:
    lines = tuple(
        Reference(
            line["words"],
            float(line.get("value", line.get("plus", 0.0))),
            line.get("setting", ""),
            line.get("unless", ""),
        )
        for line in words.get("lines", ())
    )
    low, high = words.get("shown", (-math.inf, math.inf))
    return Metric(name, **{**words, "lines": lines, "shown": (float(low), float(high))})


def describe(name: str) -> Metric:
    """Return what a column is.

    Example:
        >>> describe("mean_kl").title, describe("held_out_mean_kl").tag, describe("my_loss").title
        ('Change of the policy', 'held_out/approx_kl', 'my loss')
    """
    if name in known_metrics():
        return known_metrics()[name]
    plain = name.removeprefix(HELD_OUT)
    if plain != name:
        twin = describe(plain)
        tag = f"held_out/{twin.tag.partition('/')[2]}"
        return replace(twin, name=name, title=f"{twin.title}, held-out slots", tag=tag, beside=plain, label="held out")
    return Metric(name, "own", name.replace("_", " "), tag=name if "/" in name else f"train/{name}")


def tagged(row: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an iteration by the tags that users of Stable-Baselines3 know.

    `train/loss` is put together from its parts, -surrogate + value_weight * value_loss - entropy_weight * entropy,
    where the algorithm has these weights; where nothing but values is learnt, it is `critic_loss`. A mean over episodes
    is left out where no episode ended; any other number that is not finite is sent, for it shows where a run diverged.

    Example:
        >>> row = {"iteration": 3, "entropy": 0.5, "mean_log_std": 0.0, "training_return": math.nan, "my_loss": 2.0}
        >>> tagged(row, {})
        {'time/iterations': 3, 'train/entropy_loss': -0.5, 'train/std': 1.0, 'train/my_loss': 2.0}
    """
    found: dict[str, float] = {}
    for name, value in row.items():
        metric = describe(name)
        if not isinstance(value, int | float) or not metric.tag:
            continue
        if metric.missing and math.isnan(value):
            continue
        found[metric.tag] = _sent(value, metric.sent)
    if {"value_weight", "entropy_weight"} <= settings.keys() and {"surrogate", "value_loss", "entropy"} <= row.keys():
        parts = settings["value_weight"] * row["value_loss"] - settings["entropy_weight"] * row["entropy"]
        found["train/loss"] = parts - row["surrogate"]
    elif "critic_loss" in row and "policy_loss" not in row:
        found["train/loss"] = row["critic_loss"]
    return found


def _sent(value: float, how: str) -> float:
    if how == "negated":
        return -value
    if how == "exponential":
        return math.exp(min(value, 700.0))
    return value
