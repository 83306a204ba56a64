"""Randomness by address: the same address names the same numbers, different addresses never do."""

import itertools

import jax
import numpy as np
import pytest

from workhorse.core.addresses import STREAMS, host_generator, host_keys, stream_number
from workhorse.core.randomness import draw, permutation, root_key


def test_no_two_streams_share_a_number():
    assert len({stream_number(stream) for stream in STREAMS}) == len(STREAMS)


def test_no_two_addresses_share_a_key():
    addresses = list(itertools.product((0, 1, 2**31), STREAMS, (0, 1, 1000), (0, 1, 63)))
    data = [tuple(jax.random.key_data(draw(root_key(root), *rest)).tolist()) for root, *rest in addresses]
    assert len(set(data)) == len(addresses)
    host = [tuple(host_keys(root, *rest).tolist()) for root, *rest in addresses]
    assert len(set(host)) == len(addresses)


def test_an_address_is_not_the_sum_of_its_indices():
    assert (host_keys(0, "reset", 1, 2) != host_keys(0, "reset", 2, 1)).any()
    one, other = (jax.random.key_data(draw(root_key(0), "act", *indices)) for indices in ((1, 2), (2, 1)))
    assert (one != other).any()


def test_host_keys_broadcast_over_arrays_and_agree_with_single_calls():
    keys = host_keys(3, "reset", 7, np.arange(5))
    assert keys.shape == (5, 2) and keys.dtype == np.uint64
    assert (keys[4] == host_keys(3, "reset", 7, 4)).all()


def test_host_generators_of_equal_keys_draw_equal_numbers():
    key = host_keys(0, "reset", 0, 0)
    assert (host_generator(key).normal(size=9) == host_generator(key).normal(size=9)).all()


def test_keys_are_what_they_were_when_runs_were_made():
    # golden: a change here breaks the resume of every run there is
    assert host_keys(0, "reset", 0, 0).tolist() == [3726378704736428539, 1494333759842692354]
    assert jax.random.key_data(draw(root_key(0), "act", 1, 2)).tolist() == [4200955411, 3742174848]


@pytest.mark.parametrize("stream", STREAMS)
def test_jax_and_numpy_fold_the_same_stream_number(stream):
    expected = jax.random.fold_in(root_key(5), stream_number(stream))
    assert (jax.random.key_data(draw(root_key(5), stream)) == jax.random.key_data(expected)).all()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 64, 1625, 1626, 2048])
def test_a_permutation_is_that_of_jax(count):
    for seed in range(3):
        expected = jax.random.permutation(root_key(seed), count)
        assert (jax.jit(permutation, static_argnums=1)(root_key(seed), count) == expected).all()


def test_a_permutation_is_that_of_jax_where_sort_keys_collide():
    count = 300_000  # 32-bit keys: ten pairs of equal ones are to be expected in each of three sorts
    expected = jax.random.permutation(root_key(1), count)
    assert (permutation(root_key(1), count) == expected).all()
