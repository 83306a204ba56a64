"""Blocks of an update: the same bits from anybody's hands, and never a wait."""

import numpy as np
import pytest

from workhorse.core.types import Moments, Returns
from workhorse.distributed.shared_blocks import SharedBlocks
from workhorse.math import noise
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms


def compute(block):
    return np.full((1, noise.BLOCK_SIZE), block, np.float32)


def test_two_processes_make_each_block_once_between_them(tmp_path):
    one, other = (SharedBlocks("run", name, root=tmp_path) for name in ("one", "other"))
    first = one(3, 40, compute)
    second = other(3, 40, compute)
    np.testing.assert_array_equal(first, second)
    assert (one.computed, one.taken, other.computed, other.taken) == (40, 0, 0, 40)


def test_processes_go_through_the_blocks_in_orders_of_their_own(tmp_path):
    orders = []
    for name in ("one", "other"):
        order = []
        (tmp_path / name).mkdir()
        SharedBlocks("run", name, root=tmp_path / name)(
            0, 40, lambda block, order=order: order.append(block) or compute(block)
        )
        orders.append(order)
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(40))


def test_nodes_and_runs_do_not_share(tmp_path):
    SharedBlocks("run", "one", "node-1", root=tmp_path)(0, 5, compute)
    for token, node in (("run", "node-2"), ("other", "node-1")):
        alien = SharedBlocks(token, "one", node, root=tmp_path)
        alien(0, 5, compute)
        assert alien.taken == 0


def test_a_folder_that_cannot_be_made_costs_only_time(tmp_path):
    place = tmp_path / "file"
    place.write_text("in the way")
    blocks = SharedBlocks("run", "one", root=place)
    np.testing.assert_array_equal(blocks(0, 3, compute), [compute(block) for block in range(3)])


def test_old_iterations_are_forgotten_and_closing_leaves_nothing(tmp_path):
    blocks = SharedBlocks("run", "one", root=tmp_path)
    for iteration in range(5):
        blocks(iteration, 3, compute)
    assert len(list((tmp_path / "workhorse-run").iterdir())) <= 2 * 3
    blocks.close()
    assert list(tmp_path.iterdir()) == []


def test_a_block_of_another_size_is_made_anew(tmp_path):
    blocks = SharedBlocks("run", "one", root=tmp_path)
    blocks(0, 2, compute)
    (tmp_path / "workhorse-run" / "0-1").write_bytes(b"half")
    np.testing.assert_array_equal(SharedBlocks("run", "two", root=tmp_path)(0, 2, compute)[1], compute(1))


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [("openai-es", {"num_pairs": 3}), ("ars", {"num_directions": 3, "num_top_directions": 2})],
)
def test_an_update_through_shared_blocks_has_the_bits_of_one_alone(algorithm, settings, tmp_path):
    plan = Plan("CartPole-v1", {}, algorithm, settings | {"policy": "mlp", "hidden": (60, 60)}, 0)
    programs = PopulationPrograms(plan.make_algorithm(plan.spec()), plan.seed)
    state = programs.init()
    assert noise.num_blocks(state.params.shape[0]) > 1
    returns = Returns(np.arange(6, dtype=np.float32) ** 2, 5.0, Moments(np.float64(2), np.zeros(4), np.ones(4)))
    alone, _ = programs.update(state, 0, returns)
    backwards, _ = programs.update(
        state, 0, returns, lambda _, count, make: [make(block) for block in reversed(range(count))][::-1]
    )
    for name in ("one", "two"):
        shared, _ = programs.update(state, 0, returns, SharedBlocks("run", name, root=tmp_path))
        np.testing.assert_array_equal(shared.params, alone.params)
    np.testing.assert_array_equal(backwards.params, alone.params)
    assert np.abs(np.asarray(alone.params) - np.asarray(state.params)).max() > 0
