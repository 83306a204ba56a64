"""A worker by itself: several messages at once, and the states that it keeps."""

import functools
import threading
from dataclasses import asdict

import pytest

from workhorse.core.machine import installed_versions
from workhorse.core.types import Returns
from workhorse.distributed.crew import Job
from workhorse.distributed.messages import Assignment, decode_control, decode_report, encode_control, encode_update
from workhorse.distributed.states import HeldState, StateLedger
from workhorse.distributed.worker import Worker
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms

SETTINGS = {"num_pairs": 2}


def plan_of(lag):
    return Plan("CartPole-v1", {"max_episode_steps": 9}, "openai-es", SETTINGS | {"lag": lag}, 3, 2)


@functools.cache
def programs_of(lag):
    plan = plan_of(lag)
    return PopulationPrograms(plan.make_algorithm(plan.spec()), plan.seed)


def set_up(lag):
    worker = Worker("w")
    record = {"plan": asdict(plan_of(lag)), "versions": installed_versions(), "exchange": "scalars"}
    assert (decode_control(worker.handle(encode_control(record))) or {})["answer"] == "ready"
    return worker


def returns_of(found):
    """Returns of a population of two chunks, one of whose reports is `found` twice over."""
    fitness = [value for result in found.results for value in result.fitness]
    return Returns(fitness, 9.0, found.results[0].observations)


def asked(at, turn, chunks=range(2), updates=()):
    return Assignment(Job("reset", at, 4, at), chunks, turn, None, at, 0, updates)


@pytest.mark.parametrize("lag", [0, 1])
def test_with_a_lag_chunks_of_the_population_before_can_be_asked_for_again(lag):
    """After a worker's death somebody who has moved on may have to play them."""
    worker = set_up(lag)
    first = decode_report(worker.handle(asked(0, 0).encode()), 4)
    update = encode_update(0, returns_of(first))
    second = decode_report(worker.handle(asked(1, 1, updates=(update,)).encode()), 4)
    assert second.at == 1 and second.digest != first.digest
    answer = worker.handle(asked(0, 2, range(1, 2)).encode())
    if lag:
        again = decode_report(answer, 4)
        assert again.at == 0 and again.digest == first.digest
        assert again.results[0].fitness.tolist() == first.results[1].fitness.tolist()
    else:
        assert "an assignment for iteration 0 met a state at 1" in (decode_control(answer) or {})["why"]
    worker.close()


def test_assignments_are_carried_out_in_the_order_in_which_they_were_sent():
    worker, answers = set_up(0), {}
    worker.handle(asked(0, 0).encode())  # it compiles
    messages = {turn: asked(0, turn, range(turn - 1, turn)).encode() for turn in (1, 2)}
    threads = {
        turn: threading.Thread(target=lambda turn=turn: answers.update({turn: worker.handle(messages[turn])}))
        for turn in messages
    }
    threads[2].start()
    threads[2].join(timeout=0.5)
    assert not answers, "the second one did not wait for the first"
    threads[1].start()
    for thread in threads.values():
        thread.join(timeout=60)
    assert [decode_report(answers[turn], 4).chunks for turn in (1, 2)] == [range(1), range(1, 2)]
    worker.close()


@pytest.mark.parametrize("lag", [0, 1])
def test_a_worker_is_sent_what_it_lacks_and_nothing_else(lag):
    programs = programs_of(lag)
    ledger, state = StateLedger(programs, "scalars"), programs.init()
    ledger.know(0, state)
    worker, late = HeldState(at=0), HeldState()
    assert ledger.send(0, worker) == (b"", 0, ())
    ledger.tell(0, returns_of(decode_report(set_up(lag).handle(asked(0, 0).encode()), 4)), [worker])
    ledger.expect(1, lambda: state)
    assert len(ledger.send(1, worker).updates) == 1 and worker.at == 1
    attachment, state_at, updates = ledger.send(1, late)
    assert attachment and state_at == 1 and not updates
    assert not ledger.send(1, late).attachment, "it has it by now"
    assert bool(ledger.send(0, worker).attachment) == (lag == 0), "with a lag it keeps the one before"
    assert ledger.send(0, late).attachment, "it never had that one"
