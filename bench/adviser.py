"""Fit and score the adviser: `python bench/adviser.py probe`, then `python bench/adviser.py fit`.

`probe` measures a task card of every variant of the label set (a card that is there is not measured again), into
bench/results/labels/cards.json. `fit` gathers what bench/labels.py measured into workhorse/advice/labels.json,
forecasts every family from a model that was fitted on the other families alone, scores those forecasts, and fits the
model that is shipped, workhorse/advice/forecast.json, on all of them. The score goes to bench/results/adviser.json.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np
from record import head

from workhorse.advice.forecast import FILE, features, fit
from workhorse.advice.labels import CLASSES, label_of
from workhorse.advice.labels import FILE as LABELS
from workhorse.advice.probe import probe_task
from workhorse.advice.variants import task_variants

RESULTS = Path(__file__).parent / "results"
CARDS = RESULTS / "labels" / "cards.json"
SEED = 100
"""Root of a card's draws: no seed that labels were measured with."""
WITHOUT_SIMULATOR = ("simple", "es", "gradient")


def probe(only: list[str]) -> None:
    """Measure the cards that are missing."""
    for variant in task_variants():
        table = json.loads(CARDS.read_text()) if CARDS.exists() else {**head("adviser.py probe"), "variants": {}}
        former = table["variants"].get(variant.name)
        if (only and variant.family not in only) or (former and "rules" in former["seconds"]):
            continue
        again = ("rules", "pid", "evolution strategies", "policy gradients") if former else ()
        card = probe_task(variant.task, variant.options, budget_s=600, threads=1, only=again, seed=SEED)
        table = json.loads(CARDS.read_text()) if CARDS.exists() else table  # another process may have written
        row = {"numbers": card.numbers, "skipped": card.skipped, "seconds": card.seconds}
        if former:
            row = {part: {**former[part], **row[part]} for part in row}
            row["seconds"]["all"] = sum(value for name, value in row["seconds"].items() if name != "all")
        table["variants"][variant.name] = row
        CARDS.parent.mkdir(parents=True, exist_ok=True)
        CARDS.write_text(json.dumps(table, indent=1))
        jax.clear_caches()  # Linux gives a process 65,530 mappings, and each program takes some
        print(variant.name, f"{card.seconds['all']:.0f} s", card.skipped, flush=True)


def gathered() -> dict[str, dict[str, list[float]]]:
    """Return the returns of each seed of each approach, by variant."""
    found: dict[str, dict[str, list[float]]] = {}
    for file in sorted((RESULTS / "labels").glob("*.json")):
        if file == CARDS:
            continue
        for name, row in json.loads(file.read_text())["variants"].items():
            rows = row if "returns" not in row else {file.stem: row}
            for approach, one in rows.items():
                if one["returns"]:
                    found.setdefault(name, {})[approach] = one["returns"]
    return {name: found[name] for name in (one.name for one in task_variants()) if name in found}


def brier(chance: np.ndarray, came: np.ndarray) -> float:
    return float(np.square(chance - came).mean())


def score(name: str, classes: tuple[str, ...]) -> dict:
    """Forecast every family from the others, and score the forecasts."""
    returns, cards = gathered(), json.loads(CARDS.read_text())["variants"]
    labels = [label_of(key, key.split("/")[0], row) for key, row in returns.items() if key in cards]
    labels = [one for one in labels if all(group in one.works for group in classes)]
    rows = [features(cards[one.name]["numbers"]) for one in labels]
    works = {group: np.array([one.works[group] for one in labels]) for group in classes}
    families = np.array([one.family for one in labels])
    chance = {group: np.zeros(len(labels)) for group in classes}
    constant = {group: np.zeros(len(labels)) for group in classes}
    usual = np.empty(len(labels), object)
    answers = np.array([one.answer(classes) for one in labels])
    for family in dict.fromkeys(families):
        out = families == family
        inside = [row for row, left in zip(rows, out, strict=True) if not left]
        rest = {group: works[group][~out] for group in classes}
        model = fit(inside, {group: came.tolist() for group, came in rest.items()})
        for place in np.flatnonzero(out):
            for group, value in model.probabilities(rows[place]).items():
                chance[group][place] = value
        kinds, counts = np.unique(answers[~out], return_counts=True)
        usual[out] = kinds[counts.argmax()]
        for group in classes:
            constant[group][out] = works[group][~out].mean()
    advice = np.array(
        [next((g for g in CLASSES if g in classes and chance[g][place] >= 0.5), "none") for place in range(len(labels))]
    )
    return {
        "name": name,
        "variants": [one.name for one in labels],
        "answers": answers.tolist(),
        "advice": advice.tolist(),
        "right": int((advice == answers).sum()),
        "works_as_advised": int(
            sum(one.works[group] if group != "none" else answer == "none"
                for one, group, answer in zip(labels, advice, answers, strict=True))
        ),
        "constant_right": int((usual == answers).sum()),
        "forecasts": len(labels),
        "chance": {group: np.round(chance[group], 3).tolist() for group in classes},
        "works": {group: works[group].astype(int).tolist() for group in classes},
        "brier": {group: brier(chance[group], works[group]) for group in classes},
        "constant_brier": {group: brier(constant[group], works[group]) for group in classes},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("probe", "fit"))
    parser.add_argument("--family", action="append", default=[])
    arguments = parser.parse_args()
    if arguments.what == "probe":
        probe(arguments.family)
        return
    made_by = "adviser.py fit"
    LABELS.write_text(json.dumps({**head(made_by), "variants": gathered()}, indent=1) + "\n")
    scores = [score("without a simulator", WITHOUT_SIMULATOR), score("with a simulator", tuple(CLASSES))]
    took = [row["seconds"]["all"] for row in json.loads(CARDS.read_text())["variants"].values()]
    seconds = {"median": float(np.median(took)), "most": max(took)}
    found = {**head(made_by), "seconds": seconds, "scores": scores}
    (RESULTS / "adviser.json").write_text(json.dumps(found, indent=1) + "\n")
    for found in scores:
        said = f"{found['right']} of {found['forecasts']} right, {found['works_as_advised']} work as advised"
        print(f"{found['name']}: {said}; usual answer {found['constant_right']}", file=sys.stderr)
        print(found["brier"], found["constant_brier"], file=sys.stderr)
        for name, answer, advice in zip(found["variants"], found["answers"], found["advice"], strict=True):
            if answer != advice:
                print("  wrong:", name, "is", answer, "advised", advice, file=sys.stderr)
    returns, cards = gathered(), json.loads(CARDS.read_text())["variants"]
    labels = [label_of(name, name.split("/")[0], row) for name, row in returns.items() if name in cards]
    groups = [group for group in CLASSES if all(group in one.works for one in labels)]
    rows = [features(cards[one.name]["numbers"]) for one in labels]
    works = {group: np.array([one.works[group] for one in labels]) for group in groups}
    model = fit(rows, {group: came.tolist() for group, came in works.items()})
    FILE.write_text(json.dumps({**head(made_by), "tasks": len(labels), "model": vars(model)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
