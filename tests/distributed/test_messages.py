"""Messages come back as they went, have the size that was promised, and damage is always called damage."""

import random
from pathlib import Path

import jax
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core.digest import digest
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Moments, Returns
from workhorse.distributed.crew import Job
from workhorse.distributed.exchange import ExchangeCost, choose
from workhorse.distributed.messages import (
    NOTHING,
    Assignment,
    Malformed,
    Report,
    decode_assignment,
    decode_control,
    decode_report,
    decode_state,
    decode_update,
    encode_control,
    encode_state,
    encode_update,
)
from workhorse.distributed.versions import mismatch
from workhorse.training.episodes import Episodes
from workhorse.training.workforce import Tally

SIZE = 3
SEEN = Moments(np.float64(7), np.arange(3.0), np.arange(3.0) + 0.5)
TALLY = Tally(np.array([1.5, -2.0], np.float32), 7, (0.1, 0.2, -3.0, 4.0), SEEN, ("Größe: NaN",))
EPISODES = Episodes(np.array([1.0, 0.0]), np.array([7, 0], np.int32), SEEN, ())
UPDATE = encode_update(4, Returns(np.array([1, 2, 3, 4], np.float32), 12.25, SEEN))
ASSIGNMENTS = [
    Assignment(Job("reset", 5, 16, 7), range(2, 5), 8, 1000, 5, 0, (UPDATE, UPDATE)),
    Assignment(Job("evaluate", 9, 100, 0), range(1), 0, None, 9, 9, ()),
    Assignment(Job("reset", 2**32 - 1, 0, 2**32 - 1), NOTHING, 2**32 - 1, None, 0, 0, ()),
]
REPORTS = [
    Report(Job("reset", 5, 16, 7), range(1, 3), 5, 2**64 - 1, 1.5, 0.25, (TALLY, TALLY._replace(failures=()))),
    Report(Job("evaluate", 6, 100, 8), range(1), 6, 0, 1.5, 0.25, (EPISODES,)),
    Report(Job("reset", 5, 16, 7), NOTHING, 5, 1, 0.0, 0.0, ()),
]


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if isinstance(left, str):
            assert left == right
        else:
            np.testing.assert_array_equal(left, right)
            assert np.asarray(left).dtype == np.asarray(right).dtype


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_assignments_come_back_as_they_went(assignment):
    assert decode_assignment(assignment.encode()) == assignment


@pytest.mark.parametrize("report", REPORTS)
def test_reports_come_back_as_they_went(report):
    same(decode_report(report.encode(), SIZE), report)


def test_updates_come_back_as_they_went_and_cost_four_bytes_a_member():
    iteration, returns = decode_update(UPDATE, SIZE)
    assert iteration == 4 and returns.mean_length == 12.25
    same(returns.observations, SEEN)
    np.testing.assert_array_equal(returns.fitness, np.array([1, 2, 3, 4], np.float32))
    for members, size in ((2, 4), (1000, 17), (20_000, 348)):
        unseen = Moments(np.zeros(()), np.zeros(size), np.zeros(size))
        message = encode_update(0, Returns(np.zeros(members, np.float32), 1.0, unseen))
        assert len(message) == 16 + 4 * members + 8 * (1 + 2 * size)


def test_orders_and_reports_have_the_sizes_that_the_documents_say():
    job = Job("reset", 5, 16, 7)
    assert len(Assignment(job, range(9), 0, None, 5).encode()) == 47
    assert len(Assignment(job, range(1), 0, None, 5, 0, (b"12", b"345")).encode()) == 47 + 2 * 4 + 5
    silent = TALLY._replace(failures=())
    for one, each in ((silent, 52 + 4 * 2), (EPISODES, 8 + 12 * 2)):
        for count in (1, 3):
            found = Report(job, range(count), 5, 0, 1.0, 1.0, (one,) * count)
            assert len(found.encode()) == 49 + count * (each + 8 * (1 + 2 * SIZE))
    text = (Path(__file__).parents[2] / "docs" / "concepts" / "distribution.md").read_text()
    for size in ("| 47, and 4 for", "| 49, and for each chunk 52 + 4 B + 8 (1 + 2 D) |", "8 + 12 B + 8 (1 + 2 D) |"):
        assert size in text


def test_control_messages_are_told_from_others():
    assert decode_control(encode_control({"answer": "ready", "host": "Köln"})) == {"answer": "ready", "host": "Köln"}
    assert decode_control(ASSIGNMENTS[0].encode()) is None


@pytest.mark.parametrize("message", [*(one.encode() for one in (*ASSIGNMENTS, *REPORTS)), encode_control({"a": 1})])
def test_every_damage_is_called_malformed(message):
    def read(damaged):
        decode_control(damaged)
        for decode in (decode_assignment, lambda found: decode_report(found, SIZE)):
            try:
                decode(damaged)
            except Malformed:
                continue

    for end in range(len(message)):
        for decode in (decode_assignment, lambda found: decode_report(found, SIZE)):
            with pytest.raises(Malformed):
                decode(message[:end])
    for decode in (decode_assignment, lambda found: decode_report(found, SIZE)):
        with pytest.raises(Malformed):
            decode(message + b"!")
    rng = random.Random(0)
    for _ in range(300):
        damaged = bytearray(message)
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            read(bytes(damaged))
        except Malformed:
            continue


@pytest.mark.parametrize(
    "rubbish", [b"", b"WH", b"\x80\x04K\x01.", b"WH\x01\x01{}", b"WH\x02\x01nonsense", b"WH\x02\x01[]", 7]
)
def test_what_is_no_message_of_ours_is_malformed(rubbish):
    with pytest.raises(Malformed):
        decode_control(rubbish)


@pytest.mark.parametrize("said", [7, {"a": 1}, [1], [["a"]]])
def test_a_report_whose_sentences_are_something_else_is_malformed(said):
    report = REPORTS[0]._replace(results=(TALLY, TALLY._replace(failures=said)))
    with pytest.raises(Malformed, match="no list of sentences"):
        decode_report(report.encode(), SIZE)


def test_a_control_message_nested_without_end_is_malformed():
    with pytest.raises(Malformed, match="no JSON"):
        decode_control(encode_control({})[:-2] + b"[" * 100_000)


@pytest.mark.parametrize("end", [0, 1, 15, 16, -1])
def test_an_update_cut_short_is_malformed(end):
    with pytest.raises(Malformed):
        decode_update(UPDATE[:end], SIZE)


@pytest.mark.parametrize("state", [b"", b"rubbish", encode_state({"a": np.zeros(3)})[:-1]])
def test_a_state_that_is_none_is_malformed(state):
    with pytest.raises(Malformed, match="no safetensors"):
        decode_state(state, {"a": np.zeros(3)})


@pytest.mark.parametrize("name", ["ars", "openai-es"])
def test_a_state_comes_back_with_its_digest(name):
    spec = EnvSpec("test", Box.unbounded(3), Box((-1.0,), (1.0,)), 10)
    algorithm = registry.make(name, spec, {"policy": "mlp", "hidden": (8,)})
    state = algorithm.init(jax.random.key(3))
    assert digest(decode_state(encode_state(state), algorithm.init(jax.random.key(0)))) == digest(state)


def test_the_cheaper_exchange_is_chosen_and_scalars_do_not_grow_with_the_policy():
    spec = EnvSpec("test", Box.unbounded(17), Box((-1.0,) * 6, (1.0,) * 6), 10)
    costs = [
        ExchangeCost.of(registry.make("openai-es", spec, {"num_pairs": 8, "policy": "mlp", "hidden": hidden}))
        for hidden in ((4,), (64, 64))
    ]
    assert costs[0].scalars == costs[1].scalars == 16 + 4 * 16 + 8 * 35
    assert costs[1].parameters - costs[0].parameters >= 4 * (17 * 64 + 64 * 64)
    assert choose("auto", costs[1]) == "scalars" and choose("parameters", costs[1]) == "parameters"
    assert choose("auto", ExchangeCost(scalars=101, parameters=100)) == "parameters"


def test_versions_that_differ_are_named_with_both():
    assert mismatch({"jax": "1", "python": "3.11"}, {"jax": "1", "python": "3.12"}) is None
    assert "the coordinator has none, the worker 2" in str(mismatch({"jax": "1"}, {"jax": "1", "optax": "2"}))
    assert "the coordinator has 1, the worker none" in str(mismatch({"jax": "1"}, {}))
