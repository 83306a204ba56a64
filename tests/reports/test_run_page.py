"""The page of one run: its numbers are those of its files, and it says that one seed is one seed."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.reports.invented import HOSTILE
from tests.reports.test_study_page import read
from workhorse.core.errors import UsageError
from workhorse.reports.run_page import write_run_report
from workhorse.reports.wording import interval_text, number_text
from workhorse.runs.cost import Ledger
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.statistics.intervals import mean_interval


def make_run(root, id="invented", iterations=40, episodes=30, **changes):
    """A run folder with everything in it."""
    folder = RunFolder.create(root, id, task="Hopper-v5", algorithm="ars", seed=3)
    manifest = Manifest.describe(
        id=folder.id, command=("workhorse", "train", "Hopper-v5", "--seed", "3"), task="Hopper-v5", task_options={},
        algorithm="ars", settings={"learning_rate": 0.01, "hidden": [64, 64]}, seed=3, env_steps=400_000,
        slots=8, threads=2, recipe="Hopper-v5/ars", recipe_source="measured here",
    )  # fmt: skip
    folder.write_manifest(replace(manifest, **changes))
    if iterations:
        metrics(iterations).write_parquet(folder.metrics)
        folder.write_status("finished", iteration=iterations, env_steps=10_000 * iterations, last_return=900.0)
    if episodes:
        returns = np.random.default_rng(0).normal(900, 50, episodes).tolist()
        (folder.evaluations / f"{iterations}-{episodes}.json").write_text(
            json.dumps({"iteration": iterations, "mean": float(np.mean(returns)), "returns": returns})
        )
    Ledger().charge("AMD EPYC", 2, 360).passed(360, 10_000 * iterations).write(folder)
    return folder


def metrics(iterations):
    rng = np.random.default_rng(1)
    mean = 900 * (1 - np.exp(-np.arange(iterations) / 12)) + rng.normal(0, 20, iterations)
    evaluated = [float(value) + 50 if place % 10 == 9 else None for place, value in enumerate(mean)]
    return pl.DataFrame(
        {
            "iteration": np.arange(1, iterations + 1),
            "env_steps": 10_000 * np.arange(1, iterations + 1),
            "failed_episodes": np.zeros(iterations, int),
            "episode_length": rng.uniform(300, 900, iterations),
            "training_return": mean,
            "training_return_min": mean - 200,
            "training_return_max": mean + 200,
            "steps_per_second": rng.uniform(9000, 11000, iterations),
            "update_s": rng.uniform(0.01, 0.02, iterations),
            "digest": ["0123456789abcdef"] * iterations,
            "evaluation_return": evaluated,
        }
    )


def test_the_page_prints_the_last_evaluation_and_its_limits(tmp_path):
    folder = make_run(tmp_path)
    reader, text = read(write_run_report(folder.path))
    returns = json.loads((folder.evaluations / "40-30.json").read_text())["returns"]
    assert f"return {interval_text(mean_interval(returns))} over 30 episodes" in text
    assert "says nothing about other seeds" in text
    assert "workhorse train Hopper-v5 --seed 3" in text
    assert "12 core-minutes" in text
    assert "400k of 400k planned" in text
    assert all(address.startswith("data:") for address in reader.loads)
    assert set(json.loads(reader.blocks["figures"])) == {
        "returns", "last-evaluation", "speed-and-length", "other-metrics",
    }  # fmt: skip


def test_the_tables_are_the_metrics(tmp_path):
    folder = make_run(tmp_path)
    data = write_run_report(folder.path).parent / "report-data"
    table, rows = pl.read_csv(data / "returns.csv", infer_schema_length=None), metrics(40)
    assert table["training_return"].drop_nulls().to_list() == rows["training_return"].to_list()
    assert table["env_steps"].max() == 400_000
    last = table.filter(pl.col("low").is_not_null()).row(0, named=True)
    returns = json.loads((folder.evaluations / "40-30.json").read_text())["returns"]
    assert (last["evaluation_return"], last["low"], last["high"]) == pytest.approx(mean_interval(returns)[:3])
    assert pl.read_csv(data / "last-evaluation.csv")["return"].to_list() == pytest.approx(returns)
    assert pl.read_csv(data / "other-metrics.csv")["update_s"].to_list() == rows["update_s"].to_list()


def test_two_episodes_get_no_interval(tmp_path):
    _, text = read(write_run_report(make_run(tmp_path, episodes=2).path))
    assert "over 2 episodes, too few for an interval" in text


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    _, text = read(write_run_report(make_run(tmp_path, iterations=0, episodes=0).path))
    assert "no evaluation yet" in text
    assert "No iteration has ended yet." in text


def test_a_long_run_is_thinned_and_keeps_every_evaluation(tmp_path):
    folder = make_run(tmp_path, iterations=9000)
    page = write_run_report(folder.path)
    table = pl.read_csv(page.parent / "report-data" / "returns.csv", infer_schema_length=None)
    assert len(table) < 3500
    evaluated = metrics(9000)["evaluation_return"].drop_nulls()
    assert table["evaluation_return"].drop_nulls()[:-1].to_list() == evaluated.to_list(), "and the last one, of more"


def test_a_video_is_in_the_page(tmp_path):
    folder = make_run(tmp_path)
    (folder.videos / "40-seed0.mp4").write_bytes(b"frames")
    reader, _ = read(write_run_report(folder.path))
    assert any(address.startswith("data:video/mp4;base64,") for address in reader.loads)


def test_settings_and_options_of_a_user_are_no_markup(tmp_path):
    folder = make_run(
        tmp_path, task_options={"xml_file": HOSTILE}, command=("workhorse", HOSTILE), recipe_source=HOSTILE
    )
    reader, text = read(write_run_report(folder.path))
    assert HOSTILE in text
    assert sum(tag == "script" for tag, _ in reader.tags) == 4
    assert not any(tag == "img" for tag, _ in reader.tags)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(UsageError, match="no manifest"):
        write_run_report(tmp_path)


def test_numbers_of_the_result(tmp_path):
    folder = make_run(tmp_path)
    returns = json.loads((folder.evaluations / "40-30.json").read_text())["returns"]
    _, text = read(write_run_report(folder.path))
    assert f"{number_text(min(returns))}, {number_text(max(returns))}" in text
    assert "better" not in text
