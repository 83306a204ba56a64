"""The coordination's bookkeeping: every chunk exactly once in the result, whatever the workers do."""

import math
import random

import pytest

from workhorse.distributed.crew import Answer, Crew, Job

JOB, NEXT = Job("reset", 0, 16, 0), Job("reset", 1, 16, 1)


def crew_of(*workers, **settings):
    crew = Crew(**settings)
    for worker in workers:
        crew.join(worker)
    return crew


def given(crew, now=0.0):
    return {order.worker: order.chunk for order in crew.orders(now)}


def test_chunks_go_out_in_order_and_come_back_in_order():
    crew = crew_of("a", "b")
    crew.begin(JOB, 3)
    first = given(crew)
    assert sorted(first.values()) == [0, 1] and given(crew) == {}
    holder = {chunk: worker for worker, chunk in first.items()}
    assert crew.answer(holder[1], JOB, 1, "one", 1.0) is Answer.ACCEPTED
    assert given(crew, 1.0) == {holder[1]: 2}
    assert not crew.complete
    with pytest.raises(ValueError, match="not complete: 1 of 3 chunks"):
        crew.results()
    crew.answer(holder[1], JOB, 2, "two", 2.0)
    crew.answer(holder[0], JOB, 0, "zero", 2.0)
    assert crew.complete and crew.results() == ["zero", "one", "two"]


def test_a_dead_workers_chunk_is_the_next_to_go_out():
    crew = crew_of("a")
    crew.begin(JOB, 3)
    assert given(crew) == {"a": 0}
    crew.leave("a")
    crew.leave("a")
    crew.join("b")
    assert given(crew) == {"b": 0} and crew.returned == 1


def test_the_first_answer_counts_also_from_somebody_believed_dead():
    crew = crew_of("a", "b")
    crew.begin(JOB, 1)
    (worker,) = given(crew)
    other = "b" if worker == "a" else "a"
    crew.leave(worker)
    assert given(crew) == {other: 0}
    assert crew.answer(worker, JOB, 0, "late", 5.0) is Answer.ACCEPTED
    assert crew.answer(other, JOB, 0, "again", 6.0) is Answer.REPEATED
    assert crew.results() == ["late"] and crew.idle == (other,)


def test_an_answer_of_an_earlier_job_frees_its_worker_and_nothing_else():
    crew = crew_of("slow", "quick")
    crew.begin(JOB, 2)
    chunks = given(crew)
    crew.begin(NEXT, 2)
    assert given(crew) == {}  # nobody is free, and nobody is given a second chunk
    assert crew.answer("slow", JOB, chunks["slow"], "old", 1.0) is Answer.STALE
    assert given(crew, 1.0) == {"slow": 0} and not crew.complete


def test_late_chunks_go_out_again_to_the_idle_and_are_never_dropped():
    crew = crew_of("a", "b", patience=3.0, patience_floor_s=0.5)
    crew.begin(JOB, 2)
    chunks = given(crew)
    crew.answer("a", JOB, chunks["a"], "a", 2.0)
    crew.answer("b", JOB, chunks["b"], "b", 2.0)
    crew.begin(NEXT, 2)
    chunks = given(crew, 10.0)
    assert crew.late_at() is None  # nobody is idle
    crew.answer("a", NEXT, chunks["a"], "a", 12.0)
    assert crew.late_at() == 16.0 and given(crew, 15.9) == {}
    assert given(crew, 16.0) == {"a": chunks["b"]} and crew.reissued == 1
    assert crew.answer("b", NEXT, chunks["b"], "b", 100.0) is Answer.ACCEPTED
    assert crew.complete


def test_a_late_chunk_whose_second_worker_leaves_goes_out_a_third_time():
    """Its first worker may be silent for ever."""
    crew = crew_of("a", "b", "c", patience_floor_s=1.0)
    crew.begin(JOB, 2)
    chunks = given(crew)
    silent, quick = chunks
    crew.answer(quick, JOB, chunks[quick], "quick", 1.0)
    again = given(crew, 10.0)
    ((second, chunk),) = again.items()
    assert chunk == chunks[silent]
    crew.leave(second)
    assert list(given(crew, 10.0).values()) == [chunk]


def test_losing_the_first_worker_of_a_chunk_given_out_twice_costs_nothing():
    crew = crew_of("a", "b", "c", patience_floor_s=1.0)
    crew.begin(JOB, 2)
    chunks = given(crew)
    silent, quick = chunks
    crew.answer(quick, JOB, chunks[quick], "quick", 1.0)
    ((second, chunk),) = given(crew, 10.0).items()
    crew.leave(silent)
    assert given(crew, 10.0) == {} and crew.returned == 0
    crew.answer(second, JOB, chunk, "second", 11.0)
    assert crew.complete


@pytest.mark.parametrize("num_chunks", [1, 2, 5])
def test_a_worker_silent_from_the_first_job_on_holds_nothing_up(num_chunks):
    """Nothing is known yet of how long a chunk takes, and fewer times come in than would be wished for."""
    crew = crew_of("silent")
    crew.begin(JOB, num_chunks)
    given(crew)
    crew.join("quick")
    now = 0.0
    for _ in range(2 * num_chunks):
        for order in crew.orders(now):
            assert order.worker == "quick"
            now += 0.5
            crew.answer("quick", JOB, order.chunk, order.chunk, now)
        late_at = crew.late_at()
        now = now if late_at is None else max(now, late_at)
    assert now < 200 and crew.results() == list(range(num_chunks))


def test_a_hiccup_below_the_floor_issues_nothing_again():
    crew = crew_of("a", "b", patience_floor_s=1.0)
    for iteration, begun in ((0, 0.0), (1, 1.0)):
        job = Job("reset", iteration, 16, iteration)
        crew.begin(job, 2)
        chunks = given(crew, begun)
        crew.answer("a", job, chunks["a"], "a", begun + 0.001)
        if iteration == 0:
            crew.answer("b", job, chunks["b"], "b", begun + 0.001)
    assert given(crew, 1.9) == {} and given(crew, 2.0) == {"a": chunks["b"]}


def test_asking_at_the_moment_a_chunk_becomes_late_gives_it_out():
    rng = random.Random(0)
    for _ in range(500):
        crew = crew_of("a", "b", patience_floor_s=0.0)
        begun, took = rng.uniform(0, 1e4), rng.uniform(0.01, 3)
        crew.begin(JOB, 2)
        chunks = given(crew, begun)
        for worker in "ab":
            crew.answer(worker, JOB, chunks[worker], worker, begun + took)
        crew.begin(NEXT, 2)
        chunks = given(crew, begun + took)
        crew.answer("a", NEXT, chunks["a"], "a", begun + 2 * took)
        assert given(crew, crew.late_at()) == {"a": chunks["b"]}


def test_refused_work_is_done_again_and_its_worker_is_free():
    crew = crew_of("a")
    crew.begin(JOB, 1)
    given(crew)
    assert crew.asked("a", JOB, 0) and not crew.asked("a", JOB, 1) and not crew.asked("a", NEXT, 0)
    assert crew.lease("a") == 0
    crew.refuse("a")
    assert crew.lease("a") is None and given(crew) == {"a": 0}


def test_a_job_needs_a_chunk():
    with pytest.raises(ValueError, match="at least 1 chunk"):
        Crew().begin(JOB, 0)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_every_chunk_is_in_once_and_right(seed):
    """Joins, deaths, slow and silent workers, refused answers and answers from the past, in random order."""
    rng, now = random.Random(seed), 0.0
    crew, doing, names = Crew(patience_floor_s=0.1), {}, iter(range(10**6))
    for _ in range(4):
        crew.join(f"w{next(names)}")
    for iteration in range(6):
        job = Job(rng.choice(["reset", "evaluate"]), iteration, 12, iteration)
        num_chunks = rng.randint(1, 12)
        crew.begin(job, num_chunks)
        for _ in range(10_000):
            if crew.complete:
                break
            for order in crew.orders(now):
                assert order.job == job and order.worker not in doing, "somebody was given a second chunk"
                slowness = rng.choices([1, 50, math.inf], [0.93, 0.05, 0.02])[0]
                doing[order.worker] = (order, now + rng.expovariate(1.0) * slowness)
            event = rng.random()
            if event < 0.03 and doing:
                worker = rng.choice(list(doing))
                crew.leave(worker)
                if rng.random() < 0.5:  # its answer may come all the same
                    order, _ = doing[worker]
                    crew.answer(worker, order.job, order.chunk, (order.job, order.chunk), now)
                del doing[worker]
            elif event < 0.06 or (all(ready == math.inf for _, ready in doing.values()) and len(doing) == crew.size):
                crew.join(f"w{next(names)}")
            elif event < 0.09 and doing:
                worker = rng.choice(list(doing))
                del doing[worker]
                crew.refuse(worker)
            else:
                now += 0.05
                for worker, (order, ready) in list(doing.items()):
                    if ready <= now:
                        del doing[worker]
                        crew.answer(worker, order.job, order.chunk, (order.job, order.chunk), now)
        assert crew.results() == [(job, chunk) for chunk in range(num_chunks)]
