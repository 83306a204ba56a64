"""The digest sees every bit and every name; flattening and restoring are inverse."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.digest import digest, flatten_arrays, restore_arrays
from workhorse.core.errors import UsageError


class Learner(NamedTuple):
    mean: object
    count: object


def state():
    return {
        "learner": Learner(jnp.arange(6.0).reshape(2, 3), np.int32(7)),
        "key": jax.random.split(jax.random.key(3), 2),
        "flags": (np.array([True, False]), 5, 2.5, False),
        "empty": np.zeros((0, 4), np.float32),
        "weak": jnp.asarray(1.5),
    }


def same(a, b) -> bool:
    left, right = flatten_arrays(a), flatten_arrays(b)
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


def with_payload(payload: int) -> np.ndarray:
    return np.array([0x7FF8000000000000 | payload], np.uint64).view(np.float64)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": np.float32(0.0)}, {"a": np.float32(-0.0)}),
        ({"a": with_payload(1)}, {"a": with_payload(2)}),
        ({"a": np.float32(1)}, {"a": np.float64(1)}),
        ({"a": np.zeros(4, np.int32)}, {"a": np.zeros(4, np.uint32)}),
        ({"a": np.zeros((2, 3))}, {"a": np.zeros((3, 2))}),
        ({"a": np.zeros(6)}, {"a": np.zeros((6, 1))}),
        ({"a": np.ones(2)}, {"b": np.ones(2)}),
        ({"a": np.ones(2), "b": np.zeros(2)}, {"a": np.zeros(2), "b": np.ones(2)}),
        ({"a": np.zeros((0, 2))}, {}),
        ({"a": np.ones(2), "b": np.zeros(2)}, {"a": np.ones(2), "b": np.ones(2)}),
        ({"a": np.ones(2), "b": np.zeros(2)}, {"a": np.zeros(2), "b": np.zeros(2)}),
        ({"a": np.arange(4.0)}, {"a": np.arange(4.0)[::-1]}),
        (jax.random.key(0), jax.random.key(1)),
        (jax.random.key(0), jax.random.key_data(jax.random.key(0))),
        (jax.random.key(0, impl="rbg"), jax.random.key(0, impl="unsafe_rbg")),
    ],
)
def test_digest_sees_every_difference(one, other):
    assert digest(one) != digest(other)


@pytest.mark.parametrize("path", [path for path, array in flatten_arrays(state()).items() if array.size])
def test_digest_sees_one_bit_of_every_leaf(path):
    arrays = flatten_arrays(state())
    flipped = arrays[path].copy().reshape(-1)
    flipped.view(np.uint8)[-1] ^= 1  # a boolean too: its byte is 0 or 1
    other = arrays | {path: flipped.reshape(arrays[path].shape)}
    assert digest(restore_arrays(state(), other)) != digest(state())


def test_digest_sees_one_bit_anywhere():
    array = np.random.default_rng(0).normal(size=50).astype(np.float32)
    reference, seen = digest(array), set()
    for bit in range(0, array.nbytes * 8, 37):
        flipped = array.copy()
        flipped.view(np.uint8)[bit // 8] ^= 1 << (bit % 8)
        seen.add(digest(flipped))
    assert reference not in seen and len(seen) == len(range(0, array.nbytes * 8, 37))


def test_digest_ignores_layout_and_device():
    array = np.arange(12.0).reshape(3, 4)
    for equal in (np.asfortranarray(array), array[::1, ::1], jnp.asarray(array), array.astype(">f8")):
        assert digest({"a": equal}) == digest({"a": array})
    assert digest({"a": array.T}) == digest({"a": np.ascontiguousarray(array.T)}) != digest({"a": array})
    assert digest(2.5) == digest(np.float64(2.5)) == digest(jnp.asarray(2.5, jnp.float64))


def test_digest_is_the_same_in_another_process():
    tree = {"a": np.arange(5.0), "b": (np.int32(3), [np.array([True])]), "d": {"x": 1, "y": 2}}
    code = (
        "import numpy as np; from workhorse.core.digest import digest; "
        "print(digest({'d': {'y': 2, 'x': 1}, 'b': (np.int32(3), [np.array([True])]), 'a': np.arange(5.0)}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(output.stdout) == digest(tree)
    assert 0 <= digest(tree) < 2**64


def test_digest_is_defined_by_the_documented_bytes():
    import hashlib

    lines = json.dumps(["a", "float32", [2]]).encode() + b"\n" + np.array([1, 2], "<f4").tobytes()
    expected = hashlib.blake2b(lines, digest_size=8).digest()
    assert digest({"a": jnp.array([1, 2], jnp.float32)}) == int.from_bytes(expected, "big")


def test_restoring_inverts_flattening_in_kind_and_bits():
    tree = state()
    arrays = flatten_arrays(tree)
    assert arrays["key"].dtype == np.uint32 and arrays["learner/count"] == 7
    back = restore_arrays(jax.tree.map(lambda leaf: leaf, tree), arrays)
    assert same(tree, back) and jax.tree.structure(tree) == jax.tree.structure(back)
    assert jnp.issubdtype(back["key"].dtype, jax.dtypes.prng_key)
    assert jax.random.uniform(back["key"][1]) == jax.random.uniform(tree["key"][1])
    assert isinstance(back["learner"].count, np.int32) and type(back["flags"][1]) is int
    assert back["flags"][3] is False and type(back["flags"][2]) is float
    assert back["weak"].weak_type and not back["learner"].mean.weak_type


def test_restored_arrays_belong_to_nobody_else():
    stored = {"a": np.arange(3.0)}
    back = restore_arrays({"a": np.zeros(3)}, stored)
    back["a"][0] = 9
    assert stored["a"][0] == 0
    device = restore_arrays({"a": jnp.zeros(3)}, stored)
    stored["a"][1] = 9
    assert device["a"][1] == 1


def test_a_template_may_be_abstract():
    tree = {"a": jnp.ones(3, jnp.float32), "key": jax.random.key(1)}
    assert same(restore_arrays(jax.eval_shape(lambda: tree), flatten_arrays(tree)), tree)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "Expected a leaf 'learner/mean' in the checkpoint, which has none"),
        ({"learner/mean": np.zeros(3), "old": np.zeros(1)}, "Expected no leaf 'old' in the checkpoint, which has one"),
        (
            {"learner/mean": np.zeros(4)},
            r"Expected 'learner/mean' in the checkpoint to be float64 of shape \(3,\), got float64 of shape \(4,\)",
        ),
        ({"learner/mean": np.zeros(3, np.float32)}, "to be float64 of shape .*, got float32 .* start a new run"),
    ],
)
def test_a_mismatch_names_the_leaf(arrays, message):
    with pytest.raises(UsageError, match=message):
        restore_arrays({"learner": {"mean": jnp.zeros(3)}}, arrays, where="the checkpoint")


@pytest.mark.parametrize("leaf", ["text", np.array(["text"]), np.array([None]), jnp.tanh, 2**70])
def test_what_is_no_array_is_refused_by_name(leaf):
    for function in (digest, flatten_arrays):
        with pytest.raises(TypeError, match=r"must be an array or a number, got .* at 'net/bad'"):
            function({"net": {"bad": leaf}})


def test_two_leaves_of_one_path_are_refused():
    with pytest.raises(ValueError, match=r"two are called 'a/b'"):
        flatten_arrays({"a/b": np.ones(1), "a": {"b": np.ones(1)}})
