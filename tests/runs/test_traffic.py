"""The bytes of a cluster run: written as they were counted, and those of iterations that come again dropped."""

from workhorse.runs.traffic import Traffic, TrafficLog, TrafficSums, read_traffic


def rows(iteration):
    return [(iteration, "w0", "orders", 30 + iteration, 0), (iteration, "w0", "reports", 0, 90)]


def test_rows_come_back_in_order_over_several_flushes(tmp_path):
    log = TrafficLog(tmp_path, 0)
    for iteration in range(5):
        log.append(rows(iteration))
        if iteration % 2:
            log.flush()
    log.flush()
    log.flush()
    assert read_traffic(tmp_path).rows() == [row for iteration in range(5) for row in rows(iteration)]


def test_two_flushes_within_an_iteration_lose_nothing(tmp_path):
    log = TrafficLog(tmp_path, 0)
    for row in rows(3):
        log.append([row])
        log.flush()
    assert read_traffic(tmp_path).rows() == rows(3)


def test_a_resumed_run_keeps_what_came_before_and_nothing_else(tmp_path):
    log = TrafficLog(tmp_path, 0)
    log.append([row for iteration in range(3) for row in rows(iteration)])
    log.flush()
    log.append([row for iteration in range(3, 6) for row in rows(iteration)])
    log.flush()
    again = TrafficLog(tmp_path, resume_from=2)
    assert read_traffic(tmp_path)["iteration"].to_list() == [0, 0, 1, 1]
    again.append(rows(2))
    again.flush()
    assert read_traffic(tmp_path).rows() == [row for iteration in range(3) for row in rows(iteration)]


def test_a_run_on_one_machine_has_none(tmp_path):
    TrafficLog(tmp_path, 0).flush()
    assert read_traffic(tmp_path).is_empty() and not list(tmp_path.iterdir())


def test_means_are_of_training_alone_and_of_the_workers_that_were_there():
    sums = TrafficSums()
    assert sums.mean() is None
    sums.add([(1, "a", "set up", 999, 9), (1, "a", "state", 5000, 0)])
    sums.add([(1, worker, "orders", 100, 0) for worker in "ab"])
    sums.add([(1, worker, "reports", 0, 40) for worker in "ab"])
    sums.add([(2, "a", "orders", 100, 0), (2, "a", "updates", 60, 0), (2, "a", "reports", 0, 40)])
    sums.add([(2, "a", "evaluation", 777, 777)])
    assert sums.mean() == Traffic(sent=360 / 3, received=120 / 3, workers=3 / 2)
