"""The event model of a cluster against closed forms, and the package's projection against the event model."""

import itertools
import math
import sys
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from workhorse.runs import projection
from workhorse.runs.measured import Measured

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from event_model import (
    Cluster,
    Network,
    Update,
    Workload,
    lockstep_seconds,
    lognormal_seconds,
    predict,
    sweep,
)

UNEQUAL = lognormal_seconds(1.0, 0.6)


def workload(num_chunks=64, seconds=(0.5,), num_params=1_000, episodes_per_chunk=2, observation_size=10):
    return Workload(num_chunks * episodes_per_chunk, episodes_per_chunk, num_params, observation_size, seconds)


def run(work, cores, *, network=None, update=None, exchange="scalars", seed=0, iterations=4, **cluster):
    return predict(
        work,
        network or Network.ideal(),
        update or Update(),
        Cluster(cores, **cluster),
        exchange,
        np.random.default_rng(seed),
        iterations,
    )


@pytest.mark.parametrize("exchange", ["scalars", "parameters"])
@pytest.mark.parametrize("cores", [1, 2, 8, 64])
def test_equal_chunks_that_divide_speed_up_as_the_cores(cores, exchange):
    found = run(workload(), cores, exchange=exchange)
    assert found.iteration_s == pytest.approx(64 * 0.5 / cores)
    assert (found.speed_up, found.efficiency) == (pytest.approx(cores), pytest.approx(1))


@pytest.mark.parametrize(("cores", "rounds"), [(1, 3), (2, 2), (3, 1), (1_000, 1)])
def test_equal_chunks_take_whole_rounds(cores, rounds):
    found = run(workload(num_chunks=3), cores)
    assert found.iteration_s == pytest.approx(0.5 * rounds)
    assert found.where.waiting == pytest.approx(0.5 * (rounds - 3 / cores))


def test_free_workers_take_the_next_chunk():
    seconds = np.random.default_rng(5).choice(UNEQUAL, 64)
    free = [0.0, 0.0, 0.0]
    for second in seconds:  # list scheduling
        first = int(np.argmin(free))
        free[first] += second
    found = run(workload(seconds=UNEQUAL), 3, seed=5, iterations=1)
    assert found.iteration_s == pytest.approx(max(free))


def test_the_last_chunk_counts_as_far_as_it_is_filled():
    found = run(Workload(5, 2, 10, 3, (1.0,)), 1)
    assert found.num_chunks == 3
    assert found.iteration_s == pytest.approx(2.5)


def test_smaller_chunks_of_the_same_episodes_use_more_cores():
    coarse, fine = (Workload(64, size, 10, 3, (0.1 * size,)) for size in (16, 1))
    assert run(coarse, 64).speed_up == pytest.approx(4)
    assert run(fine, 64).speed_up == pytest.approx(64)


def test_every_worker_rebuilding_the_update_bounds_the_speed_up():
    update = Update(seconds_per_element=1e-5, fixed_s=0.36)  # 64 pairs of 1,000 parameters: 1 s in all
    found = [run(workload(), cores, update=update) for cores in (1, 8, 64)]
    for prediction in found:
        assert prediction.iteration_s == pytest.approx(32 / prediction.cores + 1.0)
        assert prediction.where.update == pytest.approx(1.0)
    assert found[-1].speed_up == pytest.approx(33 / 1.5)


def test_the_coordinators_update_holds_everybody_up():
    update = Update(seconds_per_element=1e-5, fixed_s=0.36, block_size=1)  # 64 pairs of 1,000 parameters: 1 s in all
    found = run(workload(), 64, update=update, exchange="parameters", cores_per_node=8)
    assert found.iteration_s == pytest.approx(1.5)
    assert found.where.update == pytest.approx(1.0)


@pytest.mark.parametrize(("cores", "share"), [(1, 1.0), (2, 0.5), (3, 0.5), (4, 0.25), (8, 0.25), (64, 0.25)])
def test_processes_of_a_node_share_the_update(cores, share):
    update = Update(seconds_per_element=1e-5, block_size=250)
    found = run(workload(), cores, update=update, cores_per_node=8)
    assert found.where.update == pytest.approx(0.64 * share)


def test_fewer_parameters_than_a_block_cannot_be_shared():
    assert Update(1e-6, block_size=65_536).seconds(workload(), 16) == Update(1e-6).seconds(workload(), 1)


@pytest.mark.parametrize("cores", [10, 100, 1_000])
def test_sending_parameters_one_by_one_takes_cores_times_bytes_over_bandwidth(cores):
    network = replace(Network.ideal(), coordinator_bytes_per_second=1e6)
    work = workload(num_chunks=cores, num_params=50_000)
    found = run(work, cores, network=network, exchange="parameters")
    down = (4 * 50_000 + 8 * 10) / 1e6
    up = (4 * 2 + 8 * 21) / 1e6
    assert found.bytes_from_coordinator == cores * (4 * 50_000 + 8 * 10)
    assert found.iteration_s == pytest.approx(cores * down + 0.5 + up)


def test_the_coordinators_processor_handles_one_message_after_another():
    network = replace(Network.ideal(), coordinator_cpu_s_per_message=0.01)
    long = run(workload(num_chunks=100, seconds=(5.0,)), 100, network=network)
    assert long.iteration_s == pytest.approx(1.0 + 5.0 + 0.01)  # 100 orders, the last one's chunk, its answer
    short = run(workload(num_chunks=100, seconds=(0.5,)), 100, network=network)
    assert short.iteration_s == pytest.approx(200 * 0.01)  # answers come in while orders still go out
    alone = run(workload(num_chunks=100), 1, network=network)
    assert alone.iteration_s == pytest.approx(100 * (0.01 + 0.5 + 0.01))


def test_a_message_takes_its_latency_each_way():
    found = run(workload(num_chunks=1), 1, network=replace(Network.ideal(), latency_s=0.2))
    assert found.iteration_s == pytest.approx(0.9)
    assert found.where.network == pytest.approx(0.4)


def test_a_workers_own_link_delays_it_alone():
    network = replace(Network.ideal(), bytes_per_second=1e4)
    found = run(workload(num_chunks=50), 50, network=network)
    assert found.iteration_s == pytest.approx((4 * 100 + 8 * 21) / 1e4 + 0.5 + (4 * 2 + 8 * 21) / 1e4)


def test_a_tree_tells_each_machine_once():
    network = replace(Network.ideal(), bytes_per_second=1e6, coordinator_bytes_per_second=1e6, fan_out=2)
    work = workload(num_chunks=24, num_params=250_000)
    found = run(work, 24, network=network, exchange="parameters", cores_per_node=4)  # 6 machines: 2, then 4
    told = 4 * 250_000 + 8 * 10
    assert found.bytes_from_coordinator == 2 * told
    assert found.bytes_to_a_worker == told
    # the coordinator's second machine is told last, and tells two
    answer = (4 * 2 + 8 * 21) / 1e6
    assert found.iteration_s == pytest.approx(2 * told / 1e6 + 2 * told / 1e6 + 0.5 + 4 * answer)


def test_what_scalars_take_does_not_depend_on_the_number_of_parameters():
    found = {
        exchange: [run(workload(num_params=size), 64, exchange=exchange) for size in (1_000, 1_000_000)]
        for exchange in ("scalars", "parameters")
    }
    assert [each.bytes_to_a_worker for each in found["scalars"]] == [4 * 128 + 8 * 21] * 2
    assert [each.bytes_to_a_worker for each in found["parameters"]] == [4_080, 4_000_080]
    assert {each.bytes_to_coordinator for pair in found.values() for each in pair} == {64 * (4 * 2 + 8 * 21)}


def test_workers_without_a_chunk_are_told_scalars_but_need_no_parameters():
    network = replace(Network.ideal(), header_bytes=100)
    scalars, parameters = (run(workload(), 128, network=network, exchange=each) for each in ("scalars", "parameters"))
    assert scalars.bytes_from_coordinator == 128 * (100 + 4 * 128 + 8 * 21)
    assert parameters.bytes_from_coordinator == 64 * (100 + 4 * 1_000 + 8 * 10)


def test_telling_the_idle_does_not_keep_answers_waiting():
    network = replace(Network.ideal(), coordinator_cpu_s_per_message=0.001)
    work = workload(num_chunks=10, seconds=(0.05,))
    busy, crowded = (run(work, cores, network=network) for cores in (10, 110))
    queued = 110 * crowded.where.coordination - 10 * busy.where.coordination
    assert 0 <= queued <= 10 * 0.001 + 1e-9  # a message that is on its way out when an answer comes in
    assert crowded.iteration_s == pytest.approx(120 * 0.001)


@pytest.mark.parametrize("exchange", ["scalars", "parameters"])
@pytest.mark.parametrize("fan_out", [0, 3])
@pytest.mark.parametrize("cores", [1, 7, 200])
def test_the_parts_add_up_to_the_iteration(cores, fan_out, exchange):
    update = Update(1e-6, fixed_s=0.01, serial_s=0.05)
    found = run(
        workload(seconds=UNEQUAL), cores, network=Network(fan_out=fan_out), update=update, exchange=exchange,
        core_variation=0.2,
    )  # fmt: skip
    parts = astuple(found.where)
    assert sum(parts) == pytest.approx(found.iteration_s)
    assert all(part > 0 for part in parts[:4]) and parts[4] >= 0


def test_more_cores_never_take_longer_without_messages():
    found = sweep(workload(seconds=UNEQUAL), Network.ideal(), Update(1e-7), "scalars", range(1, 80, 3))
    times = [prediction.iteration_s for prediction in found]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(times))
    assert all(prediction.efficiency <= 1 + 1e-12 for prediction in found)


@pytest.mark.parametrize(
    "worse",
    [
        {"latency_s": 0.1},
        {"coordinator_cpu_s_per_message": 0.01},
        {"coordinator_bytes_per_second": 1e5},
        {"bytes_per_second": 1e4},
        {"header_bytes": 100_000, "coordinator_bytes_per_second": 1e6},
    ],
)
@pytest.mark.parametrize("fan_out", [0, 2])
def test_a_worse_network_takes_longer(worse, fan_out):
    network = Network(fan_out=fan_out)
    work = workload(seconds=UNEQUAL)
    assert (
        run(work, 32, network=replace(network, **worse)).iteration_s > 0.01 + run(work, 32, network=network).iteration_s
    )


def test_unequal_chunks_and_unequal_cores_wait_for_the_last():
    equal, unequal = workload(seconds=(1.0,)), workload(seconds=UNEQUAL)
    assert run(equal, 64).where.waiting == pytest.approx(0)
    assert run(unequal, 64).where.waiting > 1.0
    assert run(equal, 64, core_variation=0.3).where.waiting > 0.3


def test_the_same_generator_gives_the_same_prediction():
    work = workload(seconds=UNEQUAL)
    once, again, other = (run(work, 20, network=Network(), seed=seed, core_variation=0.1) for seed in (3, 3, 4))
    assert once == again
    assert once != other


def test_the_interval_narrows_with_the_iterations_and_holds_the_mean():
    few, many = (run(workload(seconds=UNEQUAL), 20, iterations=number) for number in (5, 80))
    widths = [high - low for low, high in (few.interval_s, many.interval_s)]
    assert widths[1] < widths[0] / 2
    assert many.interval_s[0] < many.iteration_s < many.interval_s[1]


def test_the_greatest_loss_is_named():
    assert run(workload(), 128).limit == "waiting"
    assert run(workload(), 64, update=Update(fixed_s=1.0)).limit == "update"
    assert run(workload(), 64, network=replace(Network.ideal(), latency_s=1.0)).limit == "network"
    assert run(workload(), 64, update=Update(serial_s=1.0)).limit == "coordination"


def test_efficiency_beside_fewer_cores():
    few, many = (run(workload(), cores, update=Update(serial_s=1.0)) for cores in (4, 64))
    assert many.efficiency_beside(few) == pytest.approx((4 * 9.0) / (64 * 1.5))


def test_lognormal_times_have_the_mean_and_deviation_asked_for():
    seconds = np.array(lognormal_seconds(3.0, 0.9, 100_000))
    assert (seconds.mean(), seconds.std()) == (pytest.approx(3.0), pytest.approx(0.9, rel=0.01))
    assert np.log(seconds).mean() == pytest.approx(math.log(3.0) - math.log1p(0.09) / 2, rel=1e-3)
    assert lognormal_seconds(3.0, 0.0) == (3.0,)


def test_a_lockstep_chunk_lasts_as_long_as_its_longest_episode_and_costs_what_all_of_them_do():
    rng = np.random.default_rng(0)
    drawn = np.random.default_rng(0).choice(np.array([10.0, 100.0]), (50, 3))
    expected = 2.0 * drawn.max(axis=1) + 0.5 * drawn.sum(axis=1) + 3 * 7.0
    np.testing.assert_allclose(lockstep_seconds([10, 100], 3, 0.5, 2.0, 7.0, rng, 50), expected)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: workload(seconds=()), "at least one time"),
        (lambda: workload(seconds=(0.0,)), "all of them positive"),
        (lambda: workload(num_params=0), "Workload.num_params must be positive: got 0"),
        (lambda: Network(latency_s=-1.0), "Network.latency_s must not be negative: got -1.0"),
        (lambda: Network(bytes_per_second=0.0), "Network.bytes_per_second must be positive"),
        (lambda: Update(block_size=0), "Update.block_size must be positive"),
        (lambda: Cluster(0), "Cluster.cores must be positive: got 0"),
        (lambda: run(workload(), 1, exchange="pickles"), "'scalars' or 'parameters': got 'pickles'"),
        (lambda: run(workload(), 1, iterations=0), "at least 1 iteration: got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("exchange", ["scalars", "parameters"])
@pytest.mark.parametrize("cores", [1, 16, 100, 1_000])
@pytest.mark.parametrize(
    ("chunks", "chunk_s", "variation", "num_params", "within"),
    [(640, 0.5, 0.6, 30_000, 0.08), (100, 2.0, 0.2, 500, 0.08), (640, 0.5, 0.6, 1_000_000, 0.2)],
)
def test_the_projection_agrees_with_the_event_model(chunks, chunk_s, variation, num_params, within, cores, exchange):
    """The package projects without queues, so it is less exact where large messages wait for the coordinator's link."""
    work = Workload(2 * chunks, 2, num_params, 10, lognormal_seconds(chunk_s, chunk_s * variation / math.sqrt(2)))
    update = Update(2e-9, block_size=2_048)
    one_makes_all = update.seconds(work, 1)
    blocks = -(-num_params // 2_048)
    simulated = predict(work, Network(), update, Cluster(cores), exchange, np.random.default_rng(0), 20)
    here = chunks * chunk_s + one_makes_all
    measured = Measured(here, 1, 1, chunks, 2, chunk_s, variation, one_makes_all, blocks)
    found = projection.project(measured, cores, exchange, work.told_bytes(exchange))
    assert found.wall_s == pytest.approx(simulated.iteration_s, rel=within)
