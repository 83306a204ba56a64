"""The coordinator with real workers in threads: the same bits whatever happens to them, and nobody believed blindly."""

import functools
import itertools
import threading
import time

import jax
import numpy as np
import pytest

from tests.distributed.in_process import InProcess
from workhorse.core.digest import digest
from workhorse.core.errors import TaskError, UsageError
from workhorse.core.machine import describe_hardware
from workhorse.distributed.cluster import Cluster
from workhorse.distributed.messages import NOTHING, decode_assignment, decode_report, encode_control
from workhorse.distributed.worker import Worker
from workhorse.training.evolve import Evolve
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms

CART_POLE = Plan("CartPole-v1", {"max_episode_steps": 30}, "openai-es", {"num_pairs": 6}, 3, 3)
HOPPER = Plan("Hopper-v5", {"max_episode_steps": 25}, "ars", {"num_directions": 4, "num_top_directions": 2}, 0, 3)
LAGGED = Plan(
    "CartPole-v1",
    {"max_episode_steps": 30},
    "openai-es",
    {"num_pairs": 6, "lag": 1, "episode_cap": 12, "episode_growth": 6, "shared_starts": True},
    3,
    3,
)
PLANS = {"CartPole-v1": CART_POLE, "Hopper-v5": HOPPER, "lag": LAGGED}
ITERATIONS = 4


def programs_of(plan):
    return PopulationPrograms(plan.make_algorithm(plan.spec()), plan.seed)


@functools.cache
def prepared(task):
    plan = PLANS[task]
    return plan, programs_of(plan)


@functools.cache
def alone(task):
    """Digest of every iteration, and the returns of an evaluation, on this process alone."""
    plan, programs = prepared(task)
    loop = make_loop(plan, programs.algorithm.spec, 1)
    found = follow(loop)
    loop.close()
    return found


def follow(loop, progress=None, each=lambda iteration: None, goes_on=lambda env_steps: True):
    progress = loop.start() if progress is None else progress
    digests = []
    while int(progress.iteration) < ITERATIONS:
        each(int(progress.iteration))
        progress, _, _ = loop.iterate(progress, goes_on)
        digests.append(digest(progress.state))
    return digests, loop.evaluate(progress, 5).returns.tolist()


class Team:
    """A cluster of threads, its notes, and the loop over it."""

    def __init__(self, task, make=Worker, workers=2, exchange="scalars", closed=False, **settings):
        self.plan, self.programs = prepared(task)
        self.notes = []
        self.transport = InProcess(workers, make, closed)
        self.cluster = Cluster(
            self.plan, self.programs, self.transport, exchange, self.notes.append, patience_floor_s=0.2, **settings
        )
        self.loop = Evolve(self.programs, self.cluster)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cluster.close()

    @property
    def said(self):
        return "\n".join(self.notes)

    def wait_until(self, condition):
        """Hear the workers until something is so: some compile longer than others."""
        while not condition():
            for event in self.transport.poll(0.1):
                self.cluster._react(event)

    def gather(self):
        """Wait for every worker: one that comes after the first update is sent the state."""
        self.wait_until(lambda: len(self.cluster._crew.idle) == len(self.transport.workers))
        return self


@pytest.mark.parametrize("exchange", ["scalars", "parameters"])
@pytest.mark.parametrize(
    ("task", "workers"), [("CartPole-v1", 1), ("CartPole-v1", 3), ("Hopper-v5", 2), ("lag", 1), ("lag", 2), ("lag", 4)]
)
def test_any_number_of_workers_gives_the_bits_of_one_process(task, workers, exchange):
    with Team(task, workers=workers, exchange=exchange) as team:
        assert follow(team.loop) == alone(task)


def evaluations(loop):
    """Returns, lengths and failures of evaluations of several sizes, at the start and after one iteration."""
    progress, found = loop.start(), []
    for _ in range(2):
        for num_episodes in (5, 11, 5, 3):
            got = loop.evaluate(progress, num_episodes)
            assert len(got.returns) == num_episodes and got.lengths.all()
            found.append((got.returns.tolist(), got.lengths.tolist(), got.failures))
        progress, _, _ = loop.iterate(progress, lambda env_steps: True)
    return found


@pytest.mark.parametrize("task", PLANS)
def test_evaluations_of_one_iteration_with_other_numbers_of_episodes_are_not_mixed_up(task):
    plan, programs = prepared(task)
    loop = make_loop(plan, programs.algorithm.spec, 2)
    expected = evaluations(loop)
    loop.close()
    assert expected[1][0][:5] == expected[0][0] == expected[2][0] and expected[4] != expected[0]
    for exchange in ("scalars", "parameters"):
        with Team(task, workers=2, exchange=exchange) as team:
            assert evaluations(team.loop) == expected


def test_a_late_answer_to_the_same_question_asked_before_does_no_harm():
    """thread-1 answers the first evaluation while the third, which asks for the same, is under way."""
    has_a_chunk, release = threading.Event(), threading.Event()

    class Late(Worker):
        asked = 0

        def handle(self, message, attachment=b""):
            if message[3] == 2:
                self.asked += 1
                if self.name == "thread-1" and self.asked == 1:
                    has_a_chunk.set()
                    assert release.wait(60)
                elif self.name == "thread-0":
                    assert has_a_chunk.wait(60)
                    if decode_assignment(message).job[2:4] == (6, 2):
                        release.set()
                        time.sleep(0.3)  # thread-1's answer comes first
            return super().handle(message, attachment)

    plan, programs = prepared("CartPole-v1")
    loop = make_loop(plan, programs.algorithm.spec, 1)
    expected = [loop.evaluate(loop.start(), count).returns.tolist() for count in (6, 9, 6)]
    loop.close()
    with Team("CartPole-v1", Late, workers=2) as team:
        progress = team.loop.start()
        assert [team.loop.evaluate(progress, count).returns.tolist() for count in (6, 9, 6)] == expected
        assert release.is_set() and len(team.transport.workers) == 2 and "let go" not in team.said


def test_an_earlier_state_can_be_evaluated_again():
    with Team("CartPole-v1") as team:
        first = team.loop.start()
        before = team.loop.evaluate(first, 5).returns.tolist()
        second, _, _ = team.loop.iterate(first)
        third, _, _ = team.loop.iterate(second)
        assert team.loop.evaluate(first, 5).returns.tolist() == before
        assert digest(team.loop.iterate(third)[0].state) == alone("CartPole-v1")[0][2]


def test_in_scalar_mode_nobody_who_was_there_from_the_start_is_sent_parameters():
    with Team("CartPole-v1", workers=2) as team:
        follow(team.gather().loop)
        purposes = {row[2] for row in team.cluster.messages()}
    assert purposes == {"set up", "orders", "updates", "reports", "evaluation"}


@pytest.mark.parametrize("task", ["CartPole-v1", "lag"])
def test_a_late_worker_is_sent_the_state_once_and_scalars_from_then_on(task):
    with Team(task, workers=1) as team:
        names = []

        def join(iteration):
            if iteration == 2:
                names.append(team.transport.add())
            team.wait_until(lambda: not names or names[0] in team.cluster._crew.idle)

        assert follow(team.loop, each=join) == alone(task)
        rows = [row for row in team.cluster.messages() if row[1] == names[0]]
    states = [row for row in rows if row[2] == "state"]
    assert len(states) == 1 and states[0][0] == 2
    assert any(row[2] == "updates" for row in rows)


@pytest.mark.parametrize("task", ["Hopper-v5", "lag"])
def test_workers_that_die_change_nothing(task):
    with Team(task, workers=3) as team:
        rng = np.random.default_rng(0)

        def kill_one_soon(iteration):
            name = rng.choice(team.transport.workers)
            threading.Timer(rng.uniform(0, 0.05), team.transport.kill, (name,)).start()
            team.transport.add()

        assert follow(team.loop, each=kill_one_soon) == alone(task)
        assert "is gone: it was killed. What it was doing is done again." in team.said


def test_without_workers_it_waits_says_so_and_goes_on():
    with Team("CartPole-v1", workers=1) as team:

        def leave_and_return(iteration):
            if iteration == 2:
                team.transport.kill(team.transport.workers[0])
                threading.Timer(1.5, team.transport.add).start()

        assert follow(team.loop, each=leave_and_return) == alone("CartPole-v1")
    assert "No worker is there: waiting for one." in team.said
    assert "Going on with 1 worker(s)." in team.said


class Spoiled(Worker):
    """A worker whose answers one thread spoils; the others play only once it has."""

    spoil = staticmethod(lambda report: report)
    culprit = "thread-1"

    def handle(self, message, attachment=b""):
        if self.name != self.culprit and message[3] == 2:
            assert self.has_spoiled.wait(60)
        answer = super().handle(message, attachment)
        if self.name != self.culprit or answer[3] != 3:
            return answer
        report = decode_report(answer, self._size)
        if report.chunks == NOTHING or report.job.stream != "reset":
            return answer
        self.has_spoiled.set()
        spoiled = self.spoil(report)
        return spoiled if isinstance(spoiled, bytes) else spoiled.encode()


def spoiler(spoil):
    return type("Spoiler", (Spoiled,), {"spoil": staticmethod(spoil), "has_spoiled": threading.Event()})


def with_result(**changes):
    return lambda report: report._replace(results=(report.results[0]._replace(**changes), *report.results[1:]))


GARBAGE = {
    "nan": (with_result(fitness=np.full(3, np.nan, np.float32)), "answered numbers that are not finite in chunk"),
    "short": (
        with_result(fitness=np.zeros(1, np.float32)),
        "answered 1 episodes where 3 were asked for",
    ),
    "never asked": (
        lambda report: report._replace(chunks=range(77, 78), results=report.results[:1]),
        "answered chunk 77 of iteration",
    ),
    "another iteration": (
        lambda report: report._replace(job=report.job._replace(iteration=99)),
        "of iteration 99, which it was not asked for",
    ),
    "steps": (with_result(steps=10_000), "answered 10000 steps but moments of"),
    "not ours": (lambda report: b"\x80\x04garbage", "answered bytes that begin with"),
    "cut off": (lambda report: report.encode()[:-8], "which ends in the middle of a field"),
    "surplus": (lambda report: report.encode() + b"more", "bytes were expected"),
    "a traceback": (lambda report: encode_control({"answer": "failed", "why": "Boom: no"}), "failed: Boom: no"),
    "nonsense": (lambda report: encode_control({"answer": ["?"]}), "failed: no reason given"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_refused_and_its_worker_named(kind):
    spoil, sentence = GARBAGE[kind]
    if kind == "surplus":
        sentence = "were expected"
    with Team("CartPole-v1", spoiler(spoil), workers=2, patience=1e9) as team:
        assert follow(team.loop) == alone("CartPole-v1")
    assert sentence in team.said
    assert all("thread-1" in note for note in team.notes if "let go" in note)


def test_a_worker_whose_state_drifts_is_named_and_set_right():
    """thread-0 waits for thread-1 in the third iteration, so that it plays in it."""
    has_drifted = threading.Event()

    class Drifting(Worker):
        """One bit of its parameters flips after the second update."""

        def handle(self, message, attachment=b""):
            if message[3] == 2 and self.name == "thread-0":
                assert decode_assignment(message).at < 2 or has_drifted.wait(60)
            return super().handle(message, attachment)

        def _move_on(self, assignment, attachment):
            super()._move_on(assignment, attachment)
            if self.name == "thread-1" and self._at == 2 and not has_drifted.is_set():
                params = np.array(self._states[2].params)
                params.view(np.uint32)[0] ^= 1
                self._states[2] = self._states[2]._replace(params=jax.numpy.asarray(params))
                has_drifted.set()

    with Team("CartPole-v1", Drifting, patience=1e9) as team:
        assert follow(team.gather().loop) == alone("CartPole-v1")
        states = [row for row in team.cluster.messages() if row[2] == "state"]
    assert "Worker thread-1" in team.said and "disagrees about the state after iteration 2: digest" in team.said
    assert [row[1] for row in states] == ["thread-1"]


def test_a_worker_that_always_disagrees_is_let_go():
    enough = threading.Event()

    class Wrong(Worker):
        wrong = 0

        def handle(self, message, attachment=b""):
            assert message[3] != 2 or self.name == "thread-1" or enough.wait(60)
            return super().handle(message, attachment)

        def _proof(self, assignment):
            if self.name != "thread-1":
                return super()._proof(assignment)
            self.wrong += 1
            if self.wrong == 3:
                enough.set()
            return super()._proof(assignment) ^ 1

    with Team("CartPole-v1", Wrong, workers=2, patience=1e9) as team:
        assert follow(team.loop) == alone("CartPole-v1")
    assert "thread-1" in team.said and "disagreed 3 times about the state" in team.said


def test_a_slow_worker_neither_stops_the_run_nor_changes_it():
    begun, over, asked = threading.Event(), threading.Event(), []

    class Slow(Worker):
        def handle(self, message, attachment=b""):
            if self.name == "thread-1" and message[3] == 2:
                asked.append(message)
                begun.set()
                over.wait(300)  # as slow as can be: it answers when nobody needs it any more
            elif message[3] == 2:
                assert begun.wait(60)
            return super().handle(message, attachment)

    with Team("CartPole-v1", Slow, workers=2) as team:
        try:
            assert follow(team.loop) == alone("CartPole-v1")
            assert team.cluster._crew.reissued >= 1
            assert 1 <= len(asked) <= 2 and not over.is_set(), "the run waited for it"
        finally:
            over.set()
    assert "let go" not in team.said


def test_a_fault_of_the_task_is_raised_and_not_blamed_on_every_worker():
    class Failing(Worker):
        def _begin(self, assignment, attachment):
            if 1 in assignment.chunks:
                raise ZeroDivisionError("planted")
            return super()._begin(assignment, attachment)

    with (
        Team("CartPole-v1", Failing, workers=1) as team,
        pytest.raises(RuntimeError, match=r"chunks 0 to 1 of iteration 0 failed on 3 workers(.|\n)*planted"),
    ):
        follow(team.loop)


TRACE = "Traceback (most recent call last):\n  ...\nConnectionError: simulator did not answer"


class Faulty(Worker):
    """A worker whose task raises once it has played some chunks, as an adapter reports it."""

    def _build(self, control):
        super()._build(control)
        (player,), played = self._lanes._players, itertools.count()
        play = player.play

        def raising(actor, works, stop):
            if next(played) >= 3:
                raise TaskError("Flaky-v0 raised ConnectionError: simulator did not answer", TRACE, "import gymnasium")
            return play(actor, works, stop)

        player.play = raising


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_raises_ends_the_run_with_its_sentence_as_on_one_machine(workers):
    sentence = r"^Worker thread-\d \(.*\): Flaky-v0 raised ConnectionError: simulator did not answer$"
    with Team("CartPole-v1", Faulty, workers) as team, pytest.raises(TaskError, match=sentence) as caught:
        follow(team.loop)
    assert (caught.value.traceback, caught.value.program) == (TRACE, "import gymnasium")
    assert "cannot take part" not in team.said


def test_a_chunk_that_workers_die_of_ends_the_run():
    class Fatal(Worker):
        def _begin(self, assignment, attachment):
            if 1 in assignment.chunks:
                team.transport.add()
                team.transport.kill(self.name, "its process ended")
            return super()._begin(assignment, attachment)

    with (
        Team("CartPole-v1", Fatal, workers=1) as team,
        pytest.raises(UsageError, match=r"5 workers died of chunks 0 to 1 of iteration 0(.|\n)*its process ended"),
    ):
        follow(team.loop)
    assert team.said.count("is gone: its process ended") == 4


def test_where_no_worker_can_come_the_run_ends_with_what_the_last_one_said():
    with Team("CartPole-v1", workers=1, closed=True) as team:

        def leave(iteration):
            if iteration == 2:
                team.transport.kill(team.transport.workers[0], "its machine has no memory left")

        with pytest.raises(UsageError, match=r"No worker can take part. Worker thread-0 \(.*no memory left"):
            follow(team.loop, each=leave)


def test_a_worker_refused_late_in_a_closed_cluster_ends_the_run():
    """Its predecessor worked: only a cluster that others may join is waited for."""

    class Second(Worker):
        def handle(self, message, attachment=b""):
            if self.name == "thread-1":
                message = message.replace(b"CartPole-v1", b"nosuchpackage:Task-v1")
            return super().handle(message, attachment)

    with Team("CartPole-v1", Second, workers=1, closed=True) as team:

        def exchange(iteration):
            if iteration == 2:
                team.transport.add()
                team.transport.kill("thread-0")

        with pytest.raises(UsageError, match=r"No worker can take part. .*nosuchpackage"):
            follow(team.loop, each=exchange)


def test_workers_are_charged_for_all_their_cores_from_their_arrival_to_their_end():
    now = [100.0]
    with Team("CartPole-v1", lambda name: Worker(name, 3), clock=lambda: now[0]) as team:
        progress, cluster = team.loop.start(), team.cluster
        team.loop.evaluate(progress, 12)
        team.wait_until(lambda: cluster.metrics()["workers"] == 2)  # the second may have compiled longer
        now[0] = 110.0
        assert cluster.core_seconds() == {describe_hardware().cpu: 2 * 3 * 10.0}
        assert not sum(cluster.core_seconds().values())
        now[0] = 115.0
        team.transport.kill("thread-1")
        team.wait_until(lambda: cluster.metrics()["workers"] == 1)
        now[0] = 120.0
        assert sum(cluster.core_seconds().values()) == 3 * 10.0 + 3 * 5.0
        team.transport.add()
        for event in team.transport.poll(0.1):
            cluster._react(event)
        now[0] = 130.0
        early = sum(cluster.core_seconds().values())  # the new one may not have said yet how many cores it holds
        team.wait_until(lambda: cluster.metrics()["workers"] == 2)
        assert early + sum(cluster.core_seconds().values()) == 2 * 3 * 10.0


def test_a_worker_with_other_versions_is_refused_with_both():
    class Old(Worker):
        def handle(self, message, attachment=b""):
            return super().handle(message.replace(b'"jax": "', b'"jax": "9'), attachment)

    with Team("CartPole-v1", Old) as team, pytest.raises(UsageError, match="No worker can take part") as caught:
        follow(team.loop)
    import importlib.metadata

    version = importlib.metadata.version("jax")
    assert f"the coordinator has 9{version}, the worker {version}" in str(caught.value)


def test_a_task_that_a_worker_lacks_is_named():
    class Bare(Worker):
        def handle(self, message, attachment=b""):
            return super().handle(message.replace(b"CartPole-v1", b"nosuchpackage:Task-v1"), attachment)

    with Team("CartPole-v1", Bare) as team, pytest.raises(UsageError, match="nosuchpackage"):
        follow(team.loop)


def test_one_worker_that_cannot_take_part_does_not_stop_the_others():
    class Half(Worker):
        def handle(self, message, attachment=b""):
            if self.name == "thread-1":
                message = message.replace(b"CartPole-v1", b"nosuchpackage:Task-v1")
            return super().handle(message, attachment)

    with Team("CartPole-v1", Half) as team:

        def refuse(iteration):
            team.wait_until(lambda: iteration != 2 or "Worker thread-1 cannot take part" in team.said)

        assert follow(team.loop, each=refuse) == alone("CartPole-v1")
    assert "nosuchpackage" in team.said


@pytest.mark.parametrize("task", ["CartPole-v1", "lag"])
def test_a_cluster_goes_on_where_one_process_stopped_and_the_other_way_round(task):
    plan, programs = prepared(task)
    loop = make_loop(plan, programs.algorithm.spec, 1)
    progress = loop.start()
    for _ in range(2):
        progress, _, _ = loop.iterate(progress)
    with Team(task) as team:
        digests, returns = follow(team.loop, progress)
        assert (digests, returns) == (alone(task)[0][2:], alone(task)[1])
        again, _ = follow(team.loop, progress)  # from a state that what was begun ahead does not follow
        assert again == digests
    loop.close()


@pytest.mark.parametrize("exchange", ["scalars", "parameters"])
def test_with_a_lag_nobody_waits_for_a_straggler_and_nobody_goes_further_than_one_population(exchange):
    """thread-0 holds chunks of the first population back until thread-1 has played all that it may."""
    asked, waits, release = [], threading.Event(), threading.Event()

    class Straggler(Worker):
        def handle(self, message, attachment=b""):
            if message[3] == 2:
                assignment = decode_assignment(message)
                if self.name == "thread-0" and assignment.at == 0:
                    waits.set()
                    assert release.wait(60)
                elif self.name == "thread-1":
                    assert waits.wait(60)
                    asked.append((assignment.at, len(assignment.chunks), release.is_set()))
                    if sum(chunks for at, chunks, _ in asked if at == 1) >= 3:
                        threading.Timer(0.2, release.set).start()
            return super().handle(message, attachment)

    with Team("lag", Straggler, exchange=exchange, patience=1e9) as team:
        assert follow(team.gather().loop) == alone("lag")
    before = [at for at, _, released in asked if not released]
    assert set(before) == {0, 1}, "the next population was not begun, or the one after it was"


def test_with_a_lag_nothing_follows_a_run_that_ends():
    """The last population is followed by none: the forecast is asked with the steps that are in."""
    with Team("lag") as team:
        progress, _, _ = team.loop.iterate(team.loop.start(), lambda env_steps: False)
        assert team.cluster._ahead is None
        team.loop.iterate(progress, lambda env_steps: env_steps <= int(progress.env_steps))
        iterations = {row[0] for row in team.cluster.messages() if row[2] == "orders"}
    assert iterations <= {0, 1}


def test_what_a_worker_is_sent_is_what_was_promised_whatever_the_size_of_the_policy():
    sizes = {}
    for hidden in ((8,), (90, 90)):
        settings = {"num_pairs": 6, "policy": "mlp", "hidden": hidden}
        plan = Plan("CartPole-v1", {"max_episode_steps": 5}, "openai-es", settings, 0, 3)
        programs = programs_of(plan)
        cluster = Cluster(plan, programs, InProcess(1), "scalars")
        loop = Evolve(programs, cluster)
        progress = loop.start()
        for _ in range(2):
            progress, _, _ = loop.iterate(progress)
        rows = [row for row in cluster.messages() if row[0] == 1]
        cluster.close()
        sizes[hidden] = {row[2]: (row[3], row[4]) for row in rows}
        sent = sum(row[3] for row in rows)
        moments = 8 * (1 + 2 * 4)
        assert sizes[hidden]["updates"][0] == 16 + 8 * 6 + moments
        assert sent <= 8 * 6 + moments + 16 + 4 * 40
    assert sizes[(8,)] == sizes[(90, 90)]


def test_auto_takes_the_exchange_of_fewer_bytes():
    plan, programs = prepared("CartPole-v1")
    cluster = Cluster(plan, programs, InProcess(0))
    assert cluster.exchange == ("scalars" if cluster.cost.scalars <= cluster.cost.parameters else "parameters")
    many = Plan("CartPole-v1", {}, "openai-es", {"num_pairs": 500}, 0, 50)
    assert Cluster(many, programs_of(many), InProcess(0)).exchange == "parameters"
