"""Updates are kept for workers that are behind, as far as room is left."""

import pytest

from workhorse.distributed import updates
from workhorse.distributed.updates import UpdateLog


def log_of(iterations: int, reached: list[int]) -> UpdateLog:
    log = UpdateLog()
    for iteration in range(iterations):
        log.digests[iteration] = iteration
        log.add(iteration, bytes([iteration]), [min(at, iteration) for at in reached])
    return log


def test_updates_bridge_from_the_slowest_worker_on():
    log = log_of(5, reached=[2, 4])
    assert log.between(2, 5) == (b"\2", b"\3", b"\4")
    assert log.reaches(5, 2) and log.reaches(5, 4) and log.reaches(5, 5)
    assert not log.reaches(5, 1), "every worker had those, so they were dropped"
    assert not log.reaches(5, None)


def test_a_worker_too_far_behind_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(updates, "KEPT_BYTES", 2)
    log = log_of(5, reached=[0])
    assert not log.reaches(5, 2) and log.between(3, 5) == (b"\3", b"\4")
    with pytest.raises(KeyError):
        log.between(2, 5)


def test_a_worker_behind_by_more_updates_than_are_kept_is_sent_the_state():
    """However small they are: an order has 16 bits for their number, and each is made up one after the other."""
    log = log_of(250, reached=[0])
    assert log.reaches(250, 0)
    for iteration in range(250, updates.KEPT_UPDATES + 10):
        log.add(iteration, b"", [0])
    assert not log.reaches(updates.KEPT_UPDATES + 10, 9) and log.reaches(updates.KEPT_UPDATES + 10, 10)
    assert updates.KEPT_UPDATES < 2**16


def test_a_log_without_room_keeps_nothing_but_knows_where_it_stands(monkeypatch):
    monkeypatch.setattr(updates, "KEPT_BYTES", 0)
    log = log_of(3, reached=[0])
    assert not log.reaches(3, 2) and log.reaches(3, 3) and log.between(3, 3) == ()


def test_old_digests_are_forgotten(monkeypatch):
    monkeypatch.setattr(updates, "KEPT_DIGESTS", 2)
    assert sorted(log_of(6, reached=[99]).digests) == [3, 4, 5]


def test_updates_do_not_lead_back_to_an_earlier_state():
    log = UpdateLog()
    for iteration in range(3):
        log.add(iteration, b"update", reached=[0, iteration])
    assert log.reaches(3, 0) and log.reaches(3, 3) and not log.reaches(1, 2)
