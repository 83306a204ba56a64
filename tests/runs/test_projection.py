"""Projections to other numbers of cores, against arithmetic by hand."""

from dataclasses import replace

import pytest

from workhorse.runs import projection
from workhorse.runs.cost import Ledger
from workhorse.runs.measured import Measured
from workhorse.runs.projection import Projection, project, projected_ledger

MEASURED = Measured(
    iteration_s=16.0 + 0.2 + 0.1,  # 32 rounds of chunks, the update, and 0.1 s of overhead
    iterations=100,
    cores=2,
    num_chunks=64,
    slots=2,
    chunk_s=0.5,
    length_variation=0.0,
    update_s=0.2,
    update_blocks=1,
)


@pytest.fixture
def free_messages(monkeypatch):
    monkeypatch.setattr(projection, "LATENCY_S", 0.0)
    monkeypatch.setattr(projection, "MESSAGE_CPU_S", 0.0)


@pytest.mark.usefixtures("free_messages")
def test_a_projection_to_the_measured_cores_gives_what_was_measured():
    found = project(MEASURED, 2)
    assert found.wall_s == pytest.approx(100 * 16.3)
    assert found.core_hours == pytest.approx(3 * 1_630 / 3_600)


@pytest.mark.usefixtures("free_messages")
@pytest.mark.parametrize("exchange", ["scalars", "parameters"])
def test_a_projection_keeps_what_the_run_spent_beyond_its_chunks(exchange):
    found = project(MEASURED, 64, exchange)
    assert found.wall_s == pytest.approx(100 * (0.5 + 0.2 + 0.1))
    assert any("0.1 s an iteration" in sentence for sentence in found.assumptions)


@pytest.mark.usefixtures("free_messages")
def test_a_projection_takes_nothing_off_where_the_model_is_slower_than_the_run():
    found = project(replace(MEASURED, iteration_s=12.0), 64)
    assert found.wall_s == pytest.approx(100 * 0.7)
    assert any("4.2 s an iteration more than was measured" in sentence for sentence in found.assumptions)


@pytest.mark.usefixtures("free_messages")
def test_blocks_are_shared_by_the_processes_of_a_machine_but_not_by_the_coordinator_alone():
    blocks = replace(MEASURED, update_blocks=32, iteration_s=16.0 + 0.1)  # two processes halved the update
    assert project(blocks, 64).wall_s == pytest.approx(100 * (0.5 + 0.2 / 16))
    assert project(blocks, 64, "parameters").wall_s == pytest.approx(100 * (0.5 + 0.2))
    assert any("32 blocks are shared by the 16 processes" in sentence for sentence in project(blocks, 64).assumptions)


def test_chunks_of_unequal_episodes_wait_for_the_longest():
    assert project(replace(MEASURED, length_variation=0.8), 64).wall_s > 1.5 * project(MEASURED, 64).wall_s


def test_a_round_trip_a_chunk_and_a_start_one_after_another():
    one = replace(MEASURED, update_s=0.0, iteration_s=16.0, iterations=1)
    trip = 2 * (projection.LATENCY_S + projection.MESSAGE_CPU_S)
    assert project(one, 1).wall_s == pytest.approx(64 * (0.5 + trip))
    last_begins = 64 * projection.MESSAGE_CPU_S + projection.LATENCY_S
    assert project(one, 64).wall_s == pytest.approx(last_begins + 0.5 + trip / 2)


def test_a_large_message_takes_the_link_once_a_worker():
    one = replace(MEASURED, update_s=0.0, iteration_s=16.0, iterations=1)
    second = int(projection.BYTES_PER_SECOND)
    assert project(one, 1_000, "scalars", second).wall_s == pytest.approx(1_000, rel=1e-3)  # the idle are told too
    assert project(one, 1_000, "parameters", second).wall_s == pytest.approx(64, rel=1e-3)  # the idle are not


def test_many_short_chunks_keep_the_coordinator_busy():
    short = replace(MEASURED, num_chunks=100_000, chunk_s=1e-3, update_s=0.0, iteration_s=50.0, iterations=1)
    assert project(short, 10_000).wall_s == pytest.approx(2 * 100_000 * projection.MESSAGE_CPU_S)


def test_a_projection_says_that_cores_are_left_without_chunks():
    assert "64 chunks of 2 episodes, so 936 of 1,000 cores have nothing" in project(MEASURED, 1_000).assumptions[0]
    assert "nothing to do" not in project(MEASURED, 64).assumptions[0]


def test_a_projected_run_holds_the_run_s_own_kinds_of_core():
    there = Projection(cores=3, wall_s=900.0, core_hours=1.0, assumptions=())
    assert projected_ledger(there, Ledger({"a": 30.0, "b": 10.0}), "c").core_seconds == {"a": 2_700.0, "b": 900.0}
    assert projected_ledger(there, Ledger(), "c") == Ledger({"c": 3_600.0}, wall_s=900.0)


def test_no_cores_are_refused():
    with pytest.raises(ValueError, match="at least 1 core: got 0"):
        project(MEASURED, 0)
