"""The page of one run: its numbers are those of its files, and it says that one seed is one seed."""

import json
import math
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.reports.invented import HOSTILE
from tests.reports.test_study_page import read
from workhorse.core.errors import UsageError
from workhorse.reports.again import run_again
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


def with_metrics(folder, **columns):
    """Write other metrics into a run's folder."""
    number = len(next(iter(columns.values())))
    numbers = np.arange(1, number + 1)
    pl.DataFrame({"iteration": numbers, "env_steps": 1000 * numbers, **columns}).write_parquet(folder.metrics)
    return folder


def figures(reader):
    return json.loads(reader.blocks["figures"])


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
        "returns", "last-evaluation", "metrics-episodes", "metrics-time",
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
    assert pl.read_csv(data / "metrics-time.csv")["update_s"].to_list() == rows["update_s"].to_list()


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


def test_iterations_without_the_end_of_an_episode_leave_no_hole(tmp_path):
    """A line through points that each have a neighbour without a value is not drawn at all."""
    returns = [10.0 if number % 2 else math.nan for number in range(100)]
    ends = {f"training_return_{end}": returns for end in ("min", "max")}
    folder = with_metrics(make_run(tmp_path), episodes=[1] * 100, training_return=returns, **ends)
    reader, text = read(write_run_report(folder.path))
    (panel,) = figures(reader)["returns"]
    line = next(trace for trace in panel["data"] if "training episodes" in trace.get("hovertemplate", ""))
    assert line["y"] == [10.0] * 50
    assert "2000.0,10.0," in (folder.path / "report-data" / "returns.csv").read_text()
    assert "In 50 of 100 iterations no episode ended." in text


@pytest.mark.parametrize(("columns", "said", "unsaid"), [
    ({"episodes": [3] * 9}, "training episodes: mean", "population"),
    ({}, "members of the population: mean", "training episodes: mean"),
])  # fmt: skip
def test_the_words_are_those_of_what_the_algorithm_consumes(tmp_path, columns, said, unsaid):
    folder = with_metrics(make_run(tmp_path), training_return=[float(number) for number in range(9)], **columns)
    _, text = read(write_run_report(folder.path))
    assert said in text and unsaid not in text


def test_metrics_come_in_groups_with_words_units_and_values_to_compare_with(tmp_path):
    kl = [0.004, 0.008, 0.006, 0.009]
    folder = with_metrics(
        make_run(tmp_path, settings={"max_kl": 0.01, "ratio_clip": None}),
        mean_kl=kl, held_out_mean_kl=kl[::-1], max_ratio=[1.1, 1.2, 1.3, 1.2], own_thing=[1, 2, 3, 4],
        entropy=[0.5] * 4, accepted=[1.0] * 4, surrogate=[math.nan] * 4, value_loss=[1.0, 2.0, math.nan, math.inf],
    )  # fmt: skip
    reader, text = read(write_run_report(folder.path))
    drawn = figures(reader)
    assert list(drawn)[-3:] == ["metrics-own", "metrics-policy", "metrics-value"]
    kl_panel, ratio_panel = drawn["metrics-policy"]
    assert [trace["y"] for trace in kl_panel["data"]] == [kl, kl[::-1], [0.01, 0.01]], (
        "held out beside it, and the limit"
    )
    assert len(ratio_panel["data"]) == 1, "no clip is set"
    assert "Change of the policy nats Mean KL divergence" in text and "limit, max_kl: 0.01" in text
    assert "own thing" in text and "The same in every iteration: Entropy 0.5; Step taken 1." in text
    assert "Not a finite number in 2 iterations, from 3,000 steps on." in text
    assert "Objective of the policy" not in text, "an empty panel is left out"
    assert "The run diverged: value_loss is not a finite number" in text


def test_what_would_flatten_a_curve_is_off_the_picture_and_said(tmp_path):
    explained = [0.1, 0.5, -66_000.0, 0.9]
    folder = with_metrics(make_run(tmp_path), explained_variance_own=explained, mean_kl=[1e-6, 1e-4, 1e-2, 1.0])
    reader, text = read(write_run_report(folder.path))
    (value,) = figures(reader)["metrics-value"]
    assert value["layout"]["yaxis"]["range"][0] > -1.5
    assert "1 value off the picture, as far as \N{MINUS SIGN}66,000" in text
    (policy,) = figures(reader)["metrics-policy"]
    assert policy["layout"]["yaxis"]["type"] == "log" and "nats, logarithmic" in text


def test_one_iteration_is_a_list_of_numbers(tmp_path):
    _, text = read(write_run_report(with_metrics(make_run(tmp_path), mean_kl=[0.25], my_own=[3.0]).path))
    assert "In the only iteration: my own 3 Change of the policy 0.25" in text


def test_an_interval_beyond_what_is_possible_is_cut_and_marked(tmp_path):
    folder = make_run(tmp_path, task="CartPole-v1", episodes=3)
    (folder.evaluations / "40-3.json").write_text(json.dumps({"iteration": 40, "returns": [500.0, 500.0, 300.0]}))
    reader, text = read(write_run_report(folder.path))
    assert "return 433.3 [146.5, 500 max] over 3 episodes" in text
    assert "is the most or the least that an episode of this task can return" in text
    assert "Student t, cut at 500, the most that the task can return" in text, "under the figure"
    (panel,) = figures(reader)["returns"]
    (bar,) = [trace["error_y"] for trace in panel["data"] if trace.get("error_y")]
    assert bar["array"][0] + 433.333 == pytest.approx(500, abs=0.01)


@pytest.mark.parametrize(
    ("drawn", "differ"), [((400.0, 420.0, 410.0, 405.0), True), ((880.0, 930.0, 870.0, 900.0), False)]
)
def test_returns_with_drawn_actions_are_shown_beside_the_others(tmp_path, drawn, differ):
    folder = make_run(tmp_path)
    drawn *= 10  # more episodes than the evaluation without noise has, which is still the head of the page
    for iteration, returns in ((40, drawn), (20, (1.0, 2.0, 3.0))):
        record = {"iteration": iteration, "returns": returns, "stochastic": True}
        (folder.evaluations / f"{iteration}-seed3-stochastic-4.json").write_text(json.dumps(record))
    _, text = read(write_run_report(folder.path))
    estimate = interval_text(mean_interval(drawn))
    assert f"return, actions drawn {estimate}" in text
    assert ("they differ by more than their intervals" in text) is differ
    assert (f"It returns {estimate} with actions drawn from the policy" in text) is differ
    assert "over 30 episodes" in text, "the head is of the likeliest actions"


def test_drawn_actions_of_an_older_policy_are_not_shown(tmp_path):
    folder = make_run(tmp_path)
    record = {"iteration": 20, "returns": [1.0, 2.0, 3.0], "stochastic": True}
    (folder.evaluations / "20-seed3-stochastic-3.json").write_text(json.dumps(record))
    assert "actions drawn" not in read(write_run_report(folder.path))[1]


def test_equal_episodes_are_a_sentence(tmp_path):
    folder = make_run(tmp_path)
    (folder.evaluations / "40-30.json").write_text(json.dumps({"iteration": 40, "returns": [500.0] * 30}))
    reader, text = read(write_run_report(folder.path))
    assert "30 episodes of the final policy, each of which returned 500." in text
    assert "last-evaluation" not in figures(reader)


def test_the_command_to_make_it_again_names_no_folder(tmp_path):
    command = ("workhorse", "train", "my tasks:Tank-v0", "--id", "first", "--task-option", "name=it's", "--id=other")
    folder = make_run(tmp_path, command=command, task="my tasks:Tank-v0")
    _, text = read(write_run_report(folder.path))
    assert """workhorse train 'my tasks:Tank-v0' --task-option 'name=it'"'"'s'""" in text
    assert "It imports my tasks.py: run it in the folder where that lies." in text
    assert "Make it again" in text


SMALL_PPO = {
    "algorithm": "ppo",
    "settings": {"num_envs": 2, "rollout_steps": 8, "minibatch_size": 16, "hidden": (4, 4), "gradient_clip": None,
                 "scale_rewards": False},
    "task_options": {"sutton_barto_reward": True},
}  # fmt: skip


@pytest.mark.parametrize(
    "wanted",
    [
        {"algorithm": "ars", "settings": {"num_directions": 2, "num_top_directions": 1}, "slots": 2},
        pytest.param(SMALL_PPO, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_command_of_a_run_that_python_made_makes_it_again(tmp_path, wanted):
    from workhorse.runs import train
    from workhorse.runs.metrics import read_metrics

    schedule = train.Schedule(final_episodes=1)
    folder, _ = train.start(task="CartPole-v1", env_steps=16, seed=7, root=tmp_path, id="first", threads=1,
                            schedule=schedule, **wanted)  # fmt: skip
    words = shlex.split(run_again(folder.manifest()))
    assert words[:3] == ["workhorse", "train", "CartPole-v1"]
    more = ["--id", "second", "--runs", str(tmp_path), "--final-episodes", "1", "--evaluate-every", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "workhorse.cli.main", *words[1:], *more], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    one, other = (read_metrics(tmp_path / id)["digest"].to_list() for id in ("first", "second"))
    assert one == other
