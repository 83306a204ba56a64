"""What `workhorse cost` prints, what it refuses, and whose prices it believes."""

import contextlib
import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from workhorse.cli import cost
from workhorse.cli.main import COMMANDS, main
from workhorse.core.errors import UsageError
from workhorse.core.files import write_file
from workhorse.core.machine import Hardware
from workhorse.runs.cost import Ledger
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.measured import Measured, algorithm_of, measure
from workhorse.runs.metrics import MetricsLog
from workhorse.runs.projection import project

PRICES = """
currency = "EUR"
[[core]]
kind = "EPYC"
price_per_core_hour = 0.5
source = "our contract"
[[core]]
kind = "*"
price_per_core_hour = 2
source = "a guess"
"""
SECONDS = [9.0, 2.0, 4.0, 3.0]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKHORSE_PRICES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setitem(COMMANDS, "cost", "say what a run cost")


def run_folder(
    root, *, ledger=None, seconds=SECONDS, lengths=(), directions=32, policy="linear", hidden=(64, 64), **columns
):
    """A run of ARS on CartPole on 2 cores that says it took so many seconds an iteration."""
    configuration = {"num_directions": directions, "num_top_directions": directions, "policy": policy}
    folder = RunFolder.create(root / "runs", "r", task="CartPole-v1", algorithm="ars", seed=0)
    made = Manifest.describe(
        id="r",
        command=(),
        task="CartPole-v1",
        task_options={},
        algorithm="ars",
        settings=configuration | {"hidden": list(hidden)},
        seed=0,
        env_steps=100,
        slots=8,
        threads=2,
    )
    folder.write_manifest(replace(made, hardware=Hardware("AMD EPYC 7B13", 64, 0, "Linux", ())))
    log = MetricsLog(folder, tensorboard=False)
    for iteration, clock in enumerate(np.cumsum(seconds), 1):
        row = {"env_steps": 1000 * iteration, "steps": 1000, "wall_s": clock}
        log.append(iteration, row | {name: values[iteration - 1] for name, values in columns.items()})
    log.close()
    if ledger is not None:
        ledger.write(folder)
    if lengths:
        write_file(folder.evaluations / "4-2.json", f'{{"lengths": {list(lengths)}}}'.encode())
    return folder


def said(*words) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["cost", *map(str, words)]) == 0
    return out.getvalue()


def measured_of(folder: RunFolder) -> Measured:
    return measure(folder, Ledger.of(folder), algorithm_of(folder))


# --- what a run cost ---


def test_the_table(tmp_path):
    ledger = Ledger().charge("AMD EPYC 7B13", 64, 3600).charge("Intel Xeon", 1, 1800).passed(3723, 12_000_000)
    folder = run_folder(tmp_path, ledger=ledger)
    (tmp_path / "p.toml").write_text(PRICES)
    lines = said("runs/r", "--prices", "p.toml").splitlines()
    assert lines == [
        f"run         {folder.path.relative_to(tmp_path)}  (CartPole-v1 by ars, seed 0)",
        "env steps   12,000,000",
        "wall time   1 h 02 min",
        "core time   64.5 core-hours",
        "money       33.00 EUR",
        "",
        "kind of core   core-hours  EUR/core-hour    EUR  entry",
        "AMD EPYC 7B13       64.00            0.5  32.00  1: EPYC",
        "Intel Xeon           0.50              2   1.00  2: *",
        "",
        "Prices: p.toml (entry 1: our contract; entry 2: a guess)",
    ]


def test_the_built_in_assumption_is_named(tmp_path):
    run_folder(tmp_path, ledger=Ledger().charge("AMD EPYC 7B13", 1, 36))
    printed = said("runs/r")
    assert "money       0.00040 USD" in printed
    assert "an assumption and nobody's offer" in printed and "prices.toml" in printed
    assert "Estimated" not in printed


def test_a_run_without_a_ledger_is_said_to_be_estimated(tmp_path):
    run_folder(tmp_path)
    printed = said("runs/r")
    assert "Estimated: the run began before ledgers were kept" in printed
    assert "core time   36 core-seconds" in printed and "env steps   4,000" in printed and "wall time   18 s" in printed


def test_a_run_does_not_bring_its_prices(tmp_path, monkeypatch):
    folder = run_folder(tmp_path)
    (folder.path / "prices.toml").write_text(PRICES)
    assert " USD" in said("runs/r")
    assert "EUR" not in said("runs/r")
    monkeypatch.chdir(folder.path)  # whoever goes there, chooses them
    assert " EUR" in said(".")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (1234.5678, "1,234.57"),
        (1, "1.00"),
        (0.5, "0.50"),
        (0.0996, "0.10"),
        (0.9999, "1.00"),
        (0.000123, "0.00012"),
    ],
)
def test_quantities_of_any_size(value, text):
    assert cost.amount_text(value) == text


# --- what is refused ---

BAD = [
    ("", "Expected the run, which is missing."),
    ("runs/r --project --cores 7.5", "--cores must be a whole number: got '7.5'."),
    ("runs/r --project --cores 2 --exchange words", "--exchange must be one of parameters, scalars: got 'words'."),
    ("runs/r --cores 1440", "--cores 1440 is for a projection to other cores: add --project"),
    ("--project runs/r", "--project needs the number of cores"),
    ("--project runs/r --cores 0", "--cores must be at least 1 and at most 100,000: got 0"),
    ("--project runs/r --cores -5", "--cores must be at least 1"),
    ("--project runs/r --cores 1e6", "at most 100,000: got 1000000"),
    ("runs/r --exchange scalars", "--exchange scalars is for a projection"),
    ("runs/missing", "runs/missing"),
    ("runs/r --prices none.toml", "Expected a price book in none.toml, found none"),
    ("runs/r --prices bad.toml", "price_per_core_hour"),
    ("runs/r --prices other.toml", "Expected a price for the core 'AMD EPYC 7B13'"),
    ("--project runs/r --cores 4 --prices other.toml", "Expected a price for the core 'AMD EPYC 7B13'"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_gets_a_sentence_and_exit_code_2(tmp_path, capsys, line, message):
    run_folder(tmp_path)
    (tmp_path / "bad.toml").write_text(PRICES.replace("0.5", "-0.5"))
    (tmp_path / "other.toml").write_text(PRICES.split('[[core]]\nkind = "*"')[0].replace("EPYC", "Xeon"))
    assert main(["cost", *line.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.count("\n") == 1


# --- projections ---


def test_measurements_are_the_run_s_own(tmp_path):
    measured = measured_of(run_folder(tmp_path, lengths=[100, 300]))
    assert measured.num_chunks == 8 and measured.slots == 8  # 64 members of one episode
    assert measured.cores == 2 and measured.iterations == 4
    assert measured.iteration_s == pytest.approx(3.0)  # of 2, 4 and 3 seconds: the first iteration compiles
    assert measured.chunk_s == pytest.approx(3.0 * 2 / 8)  # 8 chunks of 8 members on 2 cores
    assert measured.update_s == 0 and measured.update_blocks == 1
    assert measured.length_variation == pytest.approx(0.5)
    assert "the first, 9 s, compiles" in measured.notes[0]
    assert "was not recorded" in measured.notes[2] and "2 evaluated ones, by 50 %" in measured.notes[3]


def test_an_update_that_was_timed_is_no_part_of_the_chunks(tmp_path):
    measured = measured_of(run_folder(tmp_path, update_s=[7.0, 1.0, 1.0, 1.0]))
    assert measured.update_s == 1.0 and measured.chunk_s == pytest.approx((3.0 - 1.0) * 2 / 8)
    assert not any("was not recorded and" in note for note in measured.notes)
    assert "equally long" in measured.notes[-1]


def test_threads_that_share_an_update_took_less_than_one_would(tmp_path):
    measured = measured_of(run_folder(tmp_path, update_s=[7.0, 1.0, 1.0, 1.0], policy="mlp", hidden=[300, 300]))
    assert measured.update_blocks > 2  # many blocks, shared by 2 threads
    assert measured.update_s == 2.0 and measured.chunk_s == pytest.approx((3.0 - 1.0) * 2 / 8)


@pytest.mark.parametrize(("wanted", "taken"), [((), "parameters"), (("--exchange", "scalars"), "scalars")])
def test_the_exchange_is_the_cheaper_one_or_the_one_asked_for(tmp_path, wanted, taken):
    run_folder(tmp_path, directions=2000)  # 4,000 returns are more bytes than a small actor
    assert f"exchanging {taken}" in said("--project", "runs/r", "--cores", 4, *wanted)


def test_a_cluster_s_run_has_its_workers_seconds(tmp_path):
    ledger = Ledger({"AMD EPYC 7B13": 144.0}, 18.0, 4000)
    columns = {"workers": [4] * 4, "workers_busy_s": [99, 16.0, 16.0, 16.0], "workers_updating_s": [9, 2.0, 2.0, 2.0]}
    measured = measured_of(run_folder(tmp_path, ledger=ledger, **columns))
    assert measured.cores == 8  # 144 core-seconds in 18 s
    assert measured.chunk_s == pytest.approx(16.0 / 8 * 2)  # each of 4 workers has 2 cores
    assert measured.update_s == pytest.approx(0.5)
    assert len(measured.notes) == 2


def test_a_projection_to_the_run_s_own_cores_gives_the_run_again(tmp_path):
    """8 chunks of 0.75 core-seconds on 2 cores take the 3 s an iteration that were measured, plus messages."""
    measured = measured_of(run_folder(tmp_path))
    assert project(measured, 2).wall_s == pytest.approx(12.0, rel=0.01)
    printed = said("--project", "runs/r", "--cores", 2)
    assert "measured    12 s on 2 cores, 4 iterations" in printed and "wall time   12 s" in printed
    assert "speed-up    1.00 times the run" in printed


def test_a_projection_prints_time_money_and_assumptions(tmp_path):
    run_folder(tmp_path, seconds=[9.0, 2000.0, 4000.0, 3000.0], directions=5760)
    (tmp_path / "prices.toml").write_text(PRICES)
    printed = said("runs/r", "--project", "--cores", 1440, "--exchange", "scalars")
    numbers = dict(re.findall(r"^(wall time|speed-up|efficiency|core time|money) +([\d,.]+)", printed, re.M))
    numbers = {name: float(text.replace(",", "")) for name, text in numbers.items()}
    # 1,440 chunks of 4.1667 core-seconds: 4.1667 s an iteration and some messages, 4 iterations
    least_s = 3000 * 2 / 1440 * 4
    assert least_s < numbers["wall time"] < 1.2 * least_s
    assert numbers["speed-up"] == pytest.approx(12_000 / numbers["wall time"], rel=0.05)
    assert numbers["efficiency"] == pytest.approx(100 * numbers["speed-up"] * 2 / 1440, rel=0.05)
    assert re.search(r"^core time +[\d.]+ core-hours$", printed, re.M)
    assert numbers["core time"] == pytest.approx(1441 * numbers["wall time"] / 3600, rel=0.05)
    assert numbers["money"] == pytest.approx(0.5 * numbers["core time"], abs=0.01)
    assert "projected   1,440 cores and one for the coordinator, exchanging scalars" in printed
    assumed = printed.partition("It assumes:\n")[2].splitlines()
    assert len(assumed) > 6 and all(line.startswith("- ") for line in assumed)
    assert any("the first, 9 s, compiles" in line for line in assumed)
    assert any("one core of the measured machine" in line for line in assumed)


def test_mixed_cores_are_paid_in_the_run_s_shares(tmp_path):
    run_folder(tmp_path, ledger=Ledger({"AMD EPYC": 27.0, "Xeon": 9.0}, 18.0, 4000))
    printed = said("--project", "runs/r", "--cores", 2)
    hours = [float(text) for text in re.findall(r"^(?:AMD EPYC|Xeon) +([\d.]+)", printed, re.M)]
    assert hours[0] == pytest.approx(3 * hours[1], rel=0.05)


def test_a_ledger_without_charges_is_priced_by_the_manifest(tmp_path):
    run_folder(tmp_path, ledger=Ledger())
    assert re.search(r"^AMD EPYC 7B13 ", said("--project", "runs/r", "--cores", 2), re.M)


def test_a_run_that_no_cluster_could_gather_is_not_projected(tmp_path, capsys):
    folder = run_folder(tmp_path)
    made = replace(folder.manifest(), algorithm="ppo", settings={})
    (folder.path / "manifest.json").write_text(made.to_json())
    assert main(["cost", "--project", "runs/r", "--cores", "4"]) == 2
    assert "Expected a run of an evolution strategy to project" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [[], [3.0]])
def test_a_run_that_has_only_compiled_is_not_projected(tmp_path, capsys, seconds):
    run_folder(tmp_path, seconds=seconds)
    assert main(["cost", "--project", "runs/r", "--cores", "4"]) == 2
    assert f"Expected at least 2 iterations in runs/r/metrics.parquet to project from, found {len(seconds)}" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("seconds", [[1.0, -0.5, 2.0], [1.0, math.nan, 1.0]])
def test_a_clock_that_goes_back_is_not_projected(tmp_path, seconds):
    folder = run_folder(tmp_path, ledger=Ledger(), seconds=seconds)
    with pytest.raises(UsageError, match=r"Expected a `wall_s` that grows from row to row"):
        measured_of(folder)


def test_a_cluster_that_was_not_there_from_the_start_is_mentioned(tmp_path):
    columns = {"workers": [None, None, 4, 4], "workers_busy_s": [None, None, 16.0, 16.0]}
    folder = run_folder(tmp_path, **columns)
    notes = measured_of(folder).notes
    assert any("2 of 4 iterations ran without the cluster" in note for note in notes)


@pytest.mark.parametrize("columns", [{"workers": [4] * 4}, {"workers": [4] * 4, "workers_busy_s": [math.nan] * 4}])
def test_measurements_that_cannot_be_are_refused(tmp_path, columns):
    folder = run_folder(tmp_path, **columns)
    with pytest.raises(UsageError, match=r"Expected seconds above 0 in .*metrics\.parquet"):
        measured_of(folder)


@pytest.mark.parametrize("content", ["{", "{}", '{"lengths": 3}', '{"lengths": ["a"]}', "[]"])
def test_a_damaged_evaluation_is_named(tmp_path, content):
    folder = run_folder(tmp_path)
    (folder.evaluations / "1-1.json").write_text(content)
    with pytest.raises(UsageError, match=r"Expected .*lengths. .*in .*1-1\.json.* Move it away"):
        measured_of(folder)
