"""Values of a run from a log, held against the log: the record, the sentence, the page."""

import json
import re

import numpy as np
import polars as pl
import pytest

import workhorse
from tests.training.test_log_measures import made_log
from workhorse.api.diagnosis import DiagnosisObserver, Question, diagnose
from workhorse.core.errors import UsageError
from workhorse.data.log_folder import write_log_folder
from workhorse.diagnostics.log_values import verdict
from workhorse.reports.offline_figures import claims_over_training, log_rows, log_value_records, values_and_returns
from workhorse.reports.run_page import write_run_report
from workhorse.runs.folder import RunFolder

FINE = {
    "policy_value": -40.0, "value_bound": 0.0, "seen_value_bound": -1.0, "data_return_spread": 20.0, "return_gap": 3.0,
    "outside_support": 0.04, "held_out_error": 1.0, "trained_error": 0.9,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, "Values stay within what rewards allow, and the policy near the log. 4 % of"),
        (
            {"policy_value": 6.0},
            "Values are made up: .* worth 6 .* no reward that the task can give allows more than 0",
        ),
        ({"policy_value": 6.0, "value_bound": float("nan")}, "Values are made up: .* that the log holds .* than -1"),
        ({"policy_value": 4.0}, "Values stay within"),
        ({"return_gap": 30.0}, "Values stay within"),
        ({"return_gap": 30.0, "outside_support": 0.5}, "far above what the log shows: those of its own actions by 30"),
        ({"return_gap": 70.0}, "far above what the log shows"),
        ({"outside_support": 0.5}, "the policy has left it: of its own actions nothing is known. 50 % of"),
        ({"held_out_error": 2.0}, r"2 on held-out steps and 0.9 on those that were learnt from\.$"),
        ({}, "learnt from: no overfitting.$"),
    ],
)
def test_the_sentence_says_what_the_numbers_mean(changed, wanted):
    assert re.search(wanted, verdict(FINE | changed))


def metrics(**changed):
    columns = {
        "env_steps": [1000, 2000], "policy_value": [1.0, 2.0], "data_value": [0.0, 1.0], "data_return": [-2.0, -2.0],
        "value_bound": [0.0, 0.0], "seen_value_bound": [900.0, 900.0], "action_gap": [1.0, 1.0],
        "outside_support": [0.1, 0.2], "held_out_error": [1.0, 2.0], "trained_error": [1.0, 2.0],
    }  # fmt: skip
    return pl.DataFrame({name: column for name, column in (columns | changed).items() if column is not None})


def test_the_figure_draws_what_is_there_with_the_bound_that_is_near():
    figure = claims_over_training(metrics())
    assert len(figure.panels) == 4 == len(figure.heads)
    assert [trace.name for trace in figure.panels[0].data][-1] == "highest value of the task"
    assert set(figure.table.columns) == set(metrics().columns) - {"seen_value_bound"}
    seen = claims_over_training(metrics(value_bound=[float("nan")] * 2, seen_value_bound=[5.0, 5.0]))
    assert [trace.name for trace in seen.panels[0].data][-1] == "highest by the log"
    far = claims_over_training(metrics(value_bound=[500.0, 500.0]))
    assert len(far.panels[0].data) == 3, "a bound far above would flatten the lines"
    cloned = claims_over_training(pl.DataFrame({"env_steps": [1000], "outside_support": [0.1]}))
    assert len(cloned.panels) == 1, "a policy without values"
    assert claims_over_training(pl.DataFrame({"env_steps": [1000], "value": [0.1]})) is None


@pytest.mark.slow
def test_a_run_from_a_log_is_diagnosed(tmp_path):
    write_log_folder(made_log(np.random.default_rng(0), task="Pendulum-v1"), tmp_path / "log")
    small = {"hidden": (4,), "batch_size": 8, "updates": 20, "progress": False, "runs": tmp_path, "held_out": 0.3}
    run = workhorse.offline(tmp_path / "log", "td3+bc", id="run", **small)
    folder = RunFolder.open(run.path)
    for only in ((), ("values",), ("log",)):
        found = diagnose(folder, Question(only=only), DiagnosisObserver())
        assert list(found.records) == ["log"]
    record = found.records["log"][1]
    row = run.metrics.filter(pl.col("iteration") == 1).to_dicts()[0]
    for name in ("policy_value", "data_value", "value_bound", "outside_support"):
        assert record["measures"][name] == pytest.approx(row[name], rel=1e-5), name
    assert len(record["returns"]) == len(record["data_values"]) == len(record["policy_values"]) > 10
    assert np.mean(record["data_values"]) == pytest.approx(row["data_value"], abs=0.5)
    kept = log_value_records(folder.path)
    assert kept[-1]["verdict"] == record["verdict"] and len(log_rows(kept)) == len(kept)
    figure = values_and_returns(kept[-1])
    assert figure.table["returns"].to_list() == record["returns"]
    page = write_run_report(folder.path).read_text()
    assert "Against the log" in page and "Values against returns" in page
    json.dumps(record)
    cloned = RunFolder.open(workhorse.offline(tmp_path / "log", "bc", id="cloned", **small).path)
    with pytest.raises(UsageError, match="learns no values of actions: there is nothing to hold against the log"):
        diagnose(cloned, Question(only=("log",)), DiagnosisObserver())
