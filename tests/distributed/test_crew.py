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
    """Chunks by worker: of orders for a chunk each, at most one a worker."""
    orders = crew.orders(now)
    assert all(len(order.chunks) == 1 for order in orders) and len({order.worker for order in orders}) == len(orders)
    return {order.worker: order.chunks.start for order in orders}


def answer(crew, worker, job, chunk, result, now):
    return crew.answer(worker, job, range(chunk, chunk + 1), [result], now)


def test_chunks_go_out_in_order_and_come_back_in_order():
    crew = crew_of("a", "b")
    crew.begin(JOB, 3)
    first = given(crew)
    assert sorted(first.values()) == [0, 1] and given(crew) == {}
    holder = {chunk: worker for worker, chunk in first.items()}
    assert answer(crew, holder[1], JOB, 1, "one", 1.0) is Answer.ACCEPTED
    assert given(crew, 1.0) == {holder[1]: 2}
    assert not crew.complete(JOB)
    with pytest.raises(ValueError, match="not complete: 1 of 3 chunks"):
        crew.results(JOB)
    answer(crew, holder[1], JOB, 2, "two", 2.0)
    answer(crew, holder[0], JOB, 0, "zero", 2.0)
    assert crew.complete(JOB) and crew.results(JOB) == ["zero", "one", "two"]


def test_a_worker_is_given_half_of_its_share_and_a_chunk_for_each_of_its_lanes_at_least():
    crew = Crew()
    crew.join("large", 4)
    crew.join("small", 1)
    crew.begin(JOB, 60)
    now, sizes = 0.0, {"large": [], "small": []}
    while not crew.complete(JOB):
        for order in crew.orders(now):
            sizes[order.worker].append(len(order.chunks))
        for worker in sizes:
            for job, chunks in crew.leases(worker)[:1]:
                crew.answer(worker, job, chunks, [None] * len(chunks), now)
        now += 1.0
    assert (sizes["small"][0], sizes["large"][0]) == (6, 22), "half of 60 / 5, then half of 54 * 4 / 5"
    for found in sizes.values():
        assert found == sorted(found, reverse=True), "large shares first"
    assert min(sizes["large"][:-1]) >= 4 and sum(map(sum, sizes.values())) == 60


def test_a_second_run_waits_at_a_worker_only_where_there_is_plenty_or_the_next_job_follows():
    crew = crew_of("a", "b")
    crew.begin(JOB, 2)
    assert len(given(crew)) == 2
    crew.begin(NEXT, 2)  # the next population, while this one is under way
    assert {(order.worker, order.job.iteration) for order in crew.orders(0.0)} == {("a", 1), ("b", 1)}
    crew = crew_of("a", "b")
    crew.begin(JOB, 3)
    orders = crew.orders(0.0)
    assert [len(crew.leases(worker)) for worker in "ab"] in ([1, 1], [2, 1], [1, 2]) and len(orders) <= 3
    crew = crew_of("a", "b", never_waits=True)
    crew.begin(JOB, 4)
    assert len(crew.orders(0.0)) == 4 and not crew.orders(0.0), "a worker holds two runs at most"


def test_a_job_that_is_held_gives_out_nothing_and_loses_nothing():
    crew = crew_of("a")
    crew.begin(NEXT, 1)
    crew.hold(NEXT, True)
    crew.begin(JOB, 1, ahead=True)
    assert given(crew) == {"a": 0} and crew.asked("a", JOB, range(1))
    answer(crew, "a", JOB, 0, "evaluated", 1.0)
    assert crew.results(JOB) == ["evaluated"] and given(crew) == {}
    crew.hold(NEXT, False)
    assert given(crew) == {"a": 0} and crew.asked("a", NEXT, range(1))


def test_a_dead_workers_chunk_is_the_next_to_go_out():
    crew = crew_of("a")
    crew.begin(JOB, 3)
    crew.orders(0.0)
    assert [chunks for _, chunks in crew.leases("a")] == [range(1), range(1, 2)]
    crew.leave("a")
    crew.leave("a")
    crew.join("b")
    crew.orders(0.0)
    assert [chunks for _, chunks in crew.leases("b")] == [range(1), range(1, 2)] and crew.returned == 2


def test_the_first_answer_counts_also_from_somebody_believed_dead():
    crew = crew_of("a", "b")
    crew.begin(JOB, 1)
    (worker,) = given(crew)
    other = "b" if worker == "a" else "a"
    crew.leave(worker)
    assert given(crew) == {other: 0}
    assert answer(crew, worker, JOB, 0, "late", 5.0) is Answer.ACCEPTED
    assert answer(crew, other, JOB, 0, "again", 6.0) is Answer.REPEATED
    assert crew.results(JOB) == ["late"] and crew.idle == (other,)


def test_an_answer_of_an_earlier_job_frees_its_worker_and_nothing_else():
    crew = crew_of("slow", "quick")
    crew.begin(JOB, 2)
    chunks = given(crew)
    crew.drop(JOB)
    crew.begin(NEXT, 2)
    assert given(crew) == {}  # nobody is free, and nobody is given more behind what is of no use
    assert answer(crew, "slow", JOB, chunks["slow"], "old", 1.0) is Answer.STALE
    assert given(crew, 1.0) == {"slow": 0} and not crew.complete(NEXT)


def test_late_chunks_go_out_again_to_the_idle_and_are_never_dropped():
    crew = crew_of("a", "b", patience=3.0, patience_floor_s=0.5)
    crew.begin(JOB, 2)
    chunks = given(crew)
    answer(crew, "a", JOB, chunks["a"], "a", 2.0)
    answer(crew, "b", JOB, chunks["b"], "b", 2.0)
    crew.results(JOB)
    crew.begin(NEXT, 2)
    chunks = given(crew, 10.0)
    assert crew.late_at() is None  # nobody is idle
    answer(crew, "a", NEXT, chunks["a"], "a", 12.0)
    assert crew.late_at() == 16.0 and given(crew, 15.9) == {}
    assert given(crew, 16.0) == {"a": chunks["b"]} and crew.reissued == 1
    assert answer(crew, "b", NEXT, chunks["b"], "b", 100.0) is Answer.ACCEPTED
    assert crew.complete(NEXT)


def test_what_waits_behind_a_late_chunk_goes_out_again_with_it():
    crew = crew_of("silent", never_waits=True, patience_floor_s=1.0)
    crew.begin(JOB, 1)
    given(crew)
    crew.begin(NEXT, 1)
    given(crew)
    crew.join("quick")
    assert given(crew, 59.0) == {}
    orders = crew.orders(61.0)
    assert [(order.worker, order.job) for order in orders] == [("quick", JOB), ("quick", NEXT)]


def test_what_waits_behind_a_chunk_that_nobody_needs_any_more_is_not_forgotten():
    """A worker is silent with a chunk that another has done, and has one of the next job behind it."""
    crew = crew_of("silent", never_waits=True, patience_floor_s=1.0)
    crew.begin(JOB, 1)
    given(crew)
    crew.begin(NEXT, 1)
    given(crew)
    crew.answer("believed dead", JOB, range(1), ["known"], 1.0)
    crew.results(JOB)
    crew.join("quick")
    assert given(crew, 70.0) == {"quick": 0} and crew.asked("quick", NEXT, range(1))


def test_a_late_chunk_whose_second_worker_leaves_goes_out_a_third_time():
    """Its first worker may be silent for ever."""
    crew = crew_of("a", "b", "c", patience_floor_s=1.0)
    crew.begin(JOB, 2)
    chunks = given(crew)
    silent, quick = chunks
    answer(crew, quick, JOB, chunks[quick], "quick", 1.0)
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
    answer(crew, quick, JOB, chunks[quick], "quick", 1.0)
    ((second, chunk),) = given(crew, 10.0).items()
    crew.leave(silent)
    assert given(crew, 10.0) == {} and crew.returned == 0
    answer(crew, second, JOB, chunk, "second", 11.0)
    assert crew.complete(JOB)


@pytest.mark.parametrize("num_chunks", [1, 2, 5])
def test_a_worker_silent_from_the_first_job_on_holds_nothing_up(num_chunks):
    """Nothing is known yet of how long a chunk takes, and fewer times come in than would be wished for."""
    crew = crew_of("silent")
    crew.begin(JOB, num_chunks)
    crew.orders(0.0)
    crew.join("quick")
    now = 0.0
    for _ in range(2 * num_chunks):
        for order in crew.orders(now):
            assert order.worker == "quick"
            now += 0.5
            crew.answer("quick", JOB, order.chunks, list(order.chunks), now)
        late_at = crew.late_at()
        now = now if late_at is None else max(now, late_at)
    assert now < 200 and crew.results(JOB) == list(range(num_chunks))


def test_a_hiccup_below_the_floor_issues_nothing_again():
    crew = crew_of("a", "b", patience_floor_s=1.0)
    for iteration, begun in ((0, 0.0), (1, 1.0)):
        job = Job("reset", iteration, 16, iteration)
        crew.begin(job, 2)
        chunks = given(crew, begun)
        answer(crew, "a", job, chunks["a"], "a", begun + 0.001)
        if iteration == 0:
            answer(crew, "b", job, chunks["b"], "b", begun + 0.001)
            crew.results(job)
    assert given(crew, 1.9) == {} and given(crew, 2.0) == {"a": chunks["b"]}


def test_asking_at_the_moment_a_chunk_becomes_late_gives_it_out():
    rng = random.Random(0)
    for _ in range(500):
        crew = crew_of("a", "b", patience_floor_s=0.0)
        begun, took = rng.uniform(0, 1e4), rng.uniform(0.01, 3)
        crew.begin(JOB, 2)
        chunks = given(crew, begun)
        for worker in "ab":
            answer(crew, worker, JOB, chunks[worker], worker, begun + took)
        crew.results(JOB)
        crew.begin(NEXT, 2)
        chunks = given(crew, begun + took)
        answer(crew, "a", NEXT, chunks["a"], "a", begun + 2 * took)
        assert given(crew, crew.late_at()) == {"a": chunks["b"]}


def test_refused_work_is_done_again_and_its_worker_is_free():
    crew = crew_of("a")
    crew.begin(JOB, 1)
    given(crew)
    assert crew.asked("a", JOB, range(1)) and not crew.asked("a", JOB, range(1, 2))
    assert not crew.asked("a", NEXT, range(1)) and crew.leases("a") == [(JOB, range(1))]
    crew.refuse("a", JOB, range(1), 1.0)
    assert crew.leases("a") == [] and given(crew) == {"a": 0}


def test_a_job_needs_a_chunk():
    with pytest.raises(ValueError, match="at least 1 chunk"):
        Crew().begin(JOB, 0)


@pytest.mark.parametrize("never_waits", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_every_chunk_is_in_once_and_right(seed, never_waits):
    """Joins, deaths, slow and silent workers, refused answers and answers from the past, in random order.

    With `never_waits` the next job begins once this one is given out, as with a lag.
    """
    rng, now = random.Random(seed), 0.0
    crew, doing, names = Crew(patience_floor_s=0.1, never_waits=never_waits), {}, iter(range(10**6))

    def truth(order):
        return [(order.job, chunk) for chunk in order.chunks]

    for _ in range(4):
        crew.join(f"w{next(names)}", rng.randint(1, 3))
    jobs = [Job(rng.choice(["reset", "evaluate"]), iteration, 12, iteration) for iteration in range(6)]
    sizes = [rng.randint(1, 12) for _ in jobs]
    for number, (job, num_chunks) in enumerate(zip(jobs, sizes, strict=True)):
        if not crew.is_under_way(job):
            crew.begin(job, num_chunks)
        for _ in range(10_000):
            if crew.complete(job):
                break
            if never_waits and job is not jobs[-1] and crew.all_handed_out(job):
                follower = jobs[number + 1]
                if not crew.is_under_way(follower):
                    crew.begin(follower, sizes[number + 1])
            for order in crew.orders(now):
                doing.setdefault(order.worker, [])
                assert order.job in jobs[number : number + 2] and len(doing[order.worker]) < 2
                slowness = rng.choices([1, 50, math.inf], [0.93, 0.05, 0.02])[0]
                begins = max([now, *(ready for _, ready in doing[order.worker])])
                doing[order.worker].append((order, begins + rng.expovariate(1.0) * slowness))
            event, busy = rng.random(), [worker for worker, held in doing.items() if held]
            stuck = all(held[0][1] == math.inf for held in doing.values() if held) and len(busy) == crew.size
            if event < 0.03 and busy:
                worker = rng.choice(busy)
                crew.leave(worker)
                for order, _ in doing.pop(worker):
                    if rng.random() < 0.5:  # its answer may come all the same
                        crew.answer(worker, order.job, order.chunks, truth(order), now)
            elif event < 0.06 or stuck:
                crew.join(f"w{next(names)}", rng.randint(1, 3))
            elif event < 0.09 and busy:
                worker = rng.choice(busy)
                order, _ = doing[worker].pop(0)
                crew.refuse(worker, order.job, order.chunks, now)
            else:
                now += 0.05
                for worker in busy:
                    for order, ready in list(doing[worker]):
                        if ready <= now:
                            doing[worker].remove((order, ready))
                            crew.answer(worker, order.job, order.chunks, truth(order), now)
        assert crew.results(job) == [(job, chunk) for chunk in range(num_chunks)]
