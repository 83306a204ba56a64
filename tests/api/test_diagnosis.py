"""`Run.diagnose`: the records of `workhorse diagnose`."""

import pytest

import workhorse
from workhorse.core.errors import UsageError
from workhorse.runs.sealed import read_record

SETTINGS = {"num_envs": 8, "rollout_steps": 32, "minibatch_size": 64, "num_epochs": 1, "hidden": (8,)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    given = {"env_steps": 512, "final_episodes": 2, "evaluate_every": 0, "threads": 1, "progress": False, **SETTINGS}
    return workhorse.train("CartPole-v1", "ppo", runs=tmp_path_factory.mktemp("runs"), id="pole", **given)


def test_the_trust_region_needs_no_new_measurement(run):
    found = run.diagnose(only=["trust-region"])
    assert {promise.quantity for promise in found.promises} >= {"greatest ratio"}
    assert found.records == {} and "greatest ratio" in repr(found)


@pytest.mark.slow
def test_a_diagnosis_is_what_is_kept_in_the_run_folder(run, capsys):
    budget = 10 * 4 * 32 * 9
    found = run.diagnose(at=[2], only=["gradients", "trust-region"], budget=budget, threads=1)
    assert "Measuring gradients of iteration 2" in capsys.readouterr().out
    kept = read_record(run.path / "diagnostics" / "gradients-2.json")
    assert kept.pop("run").startswith("pole, begun ") and found.records["gradients"][2] == kept
    assert [promise.quantity for promise in found.promises]
    assert "gradients at iterations 2" in repr(found)
    again = run.diagnose(at=[2], only=["gradients"], budget=budget, threads=1, progress=False)
    assert again.records == found.records
    assert capsys.readouterr().out == ""


def test_a_part_that_does_not_exist_or_cannot_be_measured_is_refused(run):
    with pytest.raises(UsageError, match=r"Unknown part 'gradient'\. Did you mean gradients"):
        run.diagnose(only=["gradient"])
    with pytest.raises(UsageError, match="at least 3"):
        run.diagnose(only=["gradients"], estimates=1)
