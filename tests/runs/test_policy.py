"""The policy artefact acts as its equations say, and refuses what it cannot act on."""

import json
import os
import pickletools
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tests.runs.policies import BOX, HALF_OPEN, VARIANTS, A, D, cell, make, normaliser, observations
from workhorse.core.errors import UsageError
from workhorse.core.layers import (
    GRU,
    Activation,
    Argmax,
    BatchNorm,
    Bins,
    Bits,
    Convolution,
    Dense,
    Expectation,
    Flatten,
    LayerNorm,
    Mode,
    Normalise,
    Squash,
    Stretch,
)
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.runs.policy import Policy

every_variant = pytest.mark.parametrize("variant", VARIANTS)
PERCEPTRONS = [name for name in VARIANTS if name not in ("pixels", "gru")]
FUNCTIONS = {
    "tanh": np.tanh,
    "relu": lambda x: max(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "elu": lambda x: x if x > 0 else np.exp(x) - 1,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
}


def by_hand(policy: Policy, observation: np.ndarray) -> np.ndarray:
    """The documented equations, one observation and one neuron at a time, in float64."""
    z = observation.astype(float)
    *layers, head = policy.layers
    for layer in layers:
        match layer:
            case Normalise():
                z = (z - layer.mean) / layer.scale
                z = z if layer.clip is None else np.minimum(np.maximum(z, -layer.clip), layer.clip)
            case Dense():
                z = np.array([sum(float(w) * x for w, x in zip(row, z, strict=True)) for row in layer.weight])
                z = z if layer.bias is None else z + layer.bias
            case Activation():
                z = np.array([FUNCTIONS[layer.name](x) for x in z])
            case Expectation():
                support, means = [float(atom) for atom in layer.support], []
                for begin in range(0, len(z), len(support)):
                    weights = [np.exp(one) for one in z[begin : begin + len(support)]]
                    means.append(sum(w * atom for w, atom in zip(weights, support, strict=True)) / sum(weights))
                z = np.array(means)
    return acted(head, policy.action, z)


def acted(head, action, z):
    match head, action:
        case Argmax(), Discrete():
            return np.array(max(range(len(z)), key=lambda i: z[i]))
        case Argmax(), MultiDiscrete():
            scores = list(z)
            groups = [[scores.pop(0) for _ in range(count)] for count in action.counts]
            return np.array([max(range(len(group)), key=lambda i: group[i]) for group in groups])
        case Bits(), MultiBinary():
            return np.array([1 if one > 0 else 0 for one in z])
        case Bins(), Box():
            chosen = []
            for i, (low, high) in enumerate(zip(action.low, action.high, strict=True)):
                scores = list(z[i * head.count : (i + 1) * head.count])
                chosen.append(low + (high - low) * scores.index(max(scores)) / (head.count - 1))
            return np.array(chosen).reshape(action.shape)
        case Squash(), Box():
            bounds = zip(z, action.low, action.high, strict=True)
            z = np.array([low + (high - low) * (np.tanh(y) + 1) / 2 for y, low, high in bounds])
        case Stretch(), Box():
            ends = zip(z, action.low, action.high, strict=True)
            z = np.array([low + (high - low) * (y + 1) / 2 if high - low < 9 else y for y, low, high in ends])
    clipped = [min(max(y, low), high) for y, low, high in zip(z, action.low, action.high, strict=True)]
    return np.array(clipped).reshape(action.shape)


@pytest.mark.parametrize("variant", PERCEPTRONS)
def test_actions_follow_the_equations(variant):
    policy = VARIANTS[variant]()
    batch = observations(policy, 20)
    actions, _ = policy.predict(batch)
    for row, observation in enumerate(batch):
        expected = by_hand(policy, observation)
        np.testing.assert_allclose(actions[row], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(policy.predict(observation)[0], expected, rtol=2e-5, atol=2e-5)


@every_variant
def test_shapes_and_types_are_those_of_gymnasium(variant):
    policy = VARIANTS[variant]()
    match policy.action:
        case Discrete():
            shape, dtype = (), np.int64
        case MultiDiscrete():
            shape, dtype = (len(policy.action.counts),), np.int64
        case MultiBinary():
            shape, dtype = (policy.action.size,), np.int8
        case _:
            shape, dtype = policy.action.shape, np.float32
    for deterministic in (True, False):
        single, _ = policy.predict(np.zeros(policy.observation.shape), deterministic=deterministic)
        assert (
            isinstance(single, np.generic if isinstance(policy.action, Discrete) else np.ndarray)
            and single.shape == shape
            and single.dtype == dtype
        )
        for rows in (0, 1, 6):
            batch, _ = policy.predict(np.zeros((rows, *policy.observation.shape)), deterministic=deterministic)
            assert batch.shape == (rows, *shape) and batch.dtype == dtype


def test_the_state_of_a_policy_without_memory_is_handed_back():
    _, state = make().predict(np.zeros(D), state="memory", episode_start=np.ones(1))
    assert state == "memory" and not make().is_recurrent


@every_variant
def test_a_batch_of_one_gives_the_bits_of_a_single_one(variant):
    policy = VARIANTS[variant]()
    for observation in observations(policy, 30, 3):
        single, batch = policy.predict(observation)[0], policy.predict(observation[None])[0]
        assert single.tobytes() == batch[0].tobytes()


def test_actions_respect_their_bounds_and_infinite_bounds_do_not_clip():
    batch = np.random.default_rng(4).normal(size=(200, D)) * 10
    for head in (Mode(), Squash(), Mode(np.zeros(A)), Squash(np.zeros(A))):
        actions = make(head=head).predict(batch, deterministic=False)[0]
        assert (actions >= np.array(BOX.low, np.float32)).all() and (actions <= np.array(BOX.high, np.float32)).all()
        assert isinstance(head, Squash) or (actions == np.array(BOX.high, np.float32)).any()
    free = linear(100 * np.eye(3), Box((-np.inf, -1.0, 0.0), (np.inf, np.inf, 1.0)))
    np.testing.assert_array_equal(free.predict(-np.ones(3))[0], [-100, -1, 0])
    np.testing.assert_array_equal(free.predict(np.ones(3))[0], [100, 100, 1])


def linear(weight, action, head=None, task="t"):
    layers = [Dense(weight), head or Mode()]
    return Policy(layers, observation=Box.unbounded(np.shape(weight)[1]), action=action, task=task)


def test_a_squashed_action_reaches_the_widest_bounds_that_float32_has():
    widest = float(np.finfo(np.float32).max)
    policy = linear(np.eye(2), Box((-widest, 0.0), (widest, widest)), Squash())
    assert policy.predict([30, 30])[0].tolist() == [widest, widest] and policy.predict([-30, -30])[0][0] == -widest


def test_bins_are_evenly_spaced_ends_included_and_ties_go_low():
    policy = linear(np.eye(6), Box((-1.0, 0.0), (1.0, 0.4)), Bins(3))  # the observation is the scores
    assert policy.predict([0, 0, 1, 0, 1, 0])[0].tolist() == [1.0, np.float32(0.2)]
    assert policy.predict([1, 0, 0, 0, 0, 1])[0].tolist() == [-1.0, np.float32(0.4)]
    assert policy.predict([0, 0, 0, 5, 5, 5])[0].tolist() == [-1.0, 0.0]


def test_ties_go_to_the_first_choice_and_zero_is_no_bit():
    assert linear(np.eye(4), Discrete(4), Argmax()).predict([1, 2, 2, 0])[0] == 1
    assert linear(np.eye(4), MultiDiscrete((2, 2)), Argmax()).predict([1, 1, 0, 0])[0].tolist() == [0, 0]
    assert linear(np.eye(3), MultiBinary(3), Bits()).predict([0, 1e-9, -1])[0].tolist() == [0, 1, 0]


def test_the_arithmetic_is_float32():
    policy = linear(np.ones((1, 2)), Box.unbounded(1))
    assert policy.predict(np.array([2.0**24, 1.0]))[0] == 2**24  # in float64 it would be 2**24 + 1
    assert policy.predict(np.array([3, 4], np.int16))[0] == 7 and policy.predict(np.array([True, True]))[0] == 2


def test_the_policy_is_a_copy():
    weight = np.ones((A, D))
    policy = linear(weight, Box.unbounded(A))
    before = policy.predict(np.ones(D))[0]
    weight[:] = 0
    assert (policy.predict(np.ones(D))[0] == before).all()
    with pytest.raises(ValueError, match=r"read-only"):
        policy.layers[0].weight[0, 0] = 1


def test_jax_arrays_will_do():
    jnp = pytest.importorskip("jax.numpy")
    policy = linear(jnp.ones((A, D)), Box.unbounded(A))
    assert isinstance(policy.layers[0].weight, np.ndarray) and policy.layers[0].weight.dtype == np.float32


def test_the_scale_is_the_normalisers():
    np.testing.assert_array_equal(make().scale, normaliser().scale.astype(np.float32))
    assert VARIANTS["plain"]().scale is None
    assert VARIANTS["pixels"]().scale.shape == (10, 8, 3)


# --- drawing ---


def drawn(policy, observation, count=4000, seed=0):
    batch = np.tile(np.asarray(observation, float), (count, 1))
    return policy.predict(batch, deterministic=False, rng=np.random.default_rng(seed))[0]


def test_draws_have_the_distribution_the_head_describes():
    logits = np.log([0.2, 0.3, 0.5])
    counts = np.bincount(drawn(linear(np.eye(3), Discrete(3), Argmax(True)), logits))
    np.testing.assert_allclose(counts / 4000, [0.2, 0.3, 0.5], atol=0.03)
    pairs = drawn(linear(np.eye(5), MultiDiscrete((2, 3)), Argmax(True)), [*np.log([0.9, 0.1]), *logits])
    np.testing.assert_allclose(np.bincount(pairs[:, 0]) / 4000, [0.9, 0.1], atol=0.03)
    np.testing.assert_allclose(np.bincount(pairs[:, 1]) / 4000, [0.2, 0.3, 0.5], atol=0.03)
    bits = drawn(linear(np.eye(2), MultiBinary(2), Bits(True)), [np.log(0.1 / 0.9), 0.0])
    np.testing.assert_allclose(bits.mean(axis=0), [0.1, 0.5], atol=0.03)
    values = drawn(linear(np.eye(2), Box.unbounded(2), Mode(np.log([0.1, 2.0]))), [1.0, -1.0])
    np.testing.assert_allclose(values.mean(axis=0), [1, -1], atol=0.15)
    np.testing.assert_allclose(values.std(axis=0), [0.1, 2], rtol=0.05)
    squashed = drawn(linear(np.eye(1), Box((-2.0,), (2.0,)), Squash(np.log([0.5]))), [1.0])
    np.testing.assert_allclose(np.arctanh(squashed / 2).std(), 0.5, rtol=0.05)


def test_draws_repeat_with_the_generator_and_differ_without():
    policy, twin = (linear(np.eye(2), Box.unbounded(2), Mode(np.zeros(2))) for _ in range(2))
    assert policy.is_stochastic
    assert (drawn(policy, [0, 0], 5) == drawn(policy, [0, 0], 5)).all()
    first, second, other = (one.predict([0, 0], deterministic=False)[0] for one in (policy, policy, twin))
    assert (first != second).all() and (first != other).all()
    assert policy.predict([0, 0])[0].tolist() == [0, 0]


@pytest.mark.parametrize("variant", ["box", "squash", "discrete", "bins"])
def test_a_policy_without_a_distribution_acts_alike_either_way(variant):
    policy = VARIANTS[variant]()
    assert not policy.is_stochastic
    batch = observations(policy, 50)
    assert (policy.predict(batch)[0] == policy.predict(batch, deterministic=False)[0]).all()


# --- memory ---


def test_the_state_carries_on_and_episode_start_forgets():
    policy = VARIANTS["gru"]()
    steps = observations(policy, 6)
    alone, state = [], None
    for step in steps:
        action, state = policy.predict(step, state)
        alone.append(action)
    assert [one.shape for one in state] == [(6,), (4,)] and policy.is_recurrent
    fresh = policy.predict(steps[3])[0]
    assert np.abs(alone[3] - fresh).max() > 1e-3  # it remembers
    batch_state = policy.predict(np.stack([steps[0]] * 2))[1]
    for number in (1, 2):
        _, batch_state = policy.predict(np.stack([steps[number]] * 2), batch_state)
    restarted, after = policy.predict(np.stack([steps[3]] * 2), batch_state, episode_start=[False, True])
    np.testing.assert_allclose(restarted, [alone[3], fresh], atol=1e-5)
    assert [one.shape for one in after] == [(2, 6), (2, 4)]
    every, _ = policy.predict(np.stack([steps[3]] * 2), batch_state, episode_start=True)
    np.testing.assert_allclose(every, [fresh, fresh], atol=1e-6)


@pytest.mark.parametrize(
    ("state", "start", "message"),
    [
        ((np.zeros((2, 6)),), None, "the state of the policy of Memory-v0 as predict returned it"),
        ((np.zeros((3, 6)), np.zeros((2, 4))), None, r"arrays of shape \[\(2, 6\), \(2, 4\)\]"),
        ("memory", None, "as predict returned it"),
        (7, None, "as predict returned it"),
        (None, [True, False, True], "episode_start as one truth or 2"),
        ((np.full((2, 6), np.nan), np.zeros((2, 4))), None, "Expected a finite state"),
    ],
)
def test_a_memory_that_does_not_fit(state, start, message):
    with pytest.raises(UsageError, match=message):
        VARIANTS["gru"]().predict(np.zeros((2, D)), state, start)


# --- refusals ---


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros(4), r"Expected an observation of shape \(5,\) or \(N, 5\), got \(4,\)\. Pass the observation"),
        (np.zeros((5, 4)), r"got \(5, 4\)"),
        (np.zeros((2, 3, 5)), r"got \(2, 3, 5\)"),
        (1.0, r"got \(\)"),
        (["a"] * 5, r"Expected an observation of real numbers of shape \(5,\) or \(N, 5\), got list of dtype <U1"),
        (None, "got NoneType of dtype object"),
        ({"obs": 1}, "got dict of dtype object"),
        (np.zeros(5, complex), "got ndarray of dtype complex128"),
        ([[0] * 5, [0]], "got rows of unlike length"),
        ([0, 0, np.nan, 0, 0], r"Expected finite observations \(in float32\), got nan in component 2 of row 0"),
        ([[0] * 5, [0] * 5, [0, -np.inf, 0, 0, 0]], "got -inf in component 1 of row 2"),
        ([1e39, 0, 0, 0, 0], r"got 1e\+39 in component 0 of row 0"),
    ],
)
def test_observations_that_cannot_be_acted_on(observation, message):
    with pytest.raises(UsageError, match=message):
        make().predict(observation)


def test_images_are_refused_by_their_shape():
    with pytest.raises(UsageError, match=r"of shape \(10, 8, 3\) or \(N, 10, 8, 3\), got \(240,\)"):
        VARIANTS["pixels"]().predict(np.zeros(240))
    image = np.zeros((2, 10, 8, 3))
    image[1, 2, 3, 0] = np.inf
    with pytest.raises(UsageError, match=r"got inf in component 2, 3, 0 of row 1"):
        VARIANTS["pixels"]().predict(image)


def test_an_output_that_overflows_is_not_passed_on():
    policy = linear(np.full((1, 2), 1e38), Box.unbounded(1))
    with pytest.raises(UsageError, match=r"Expected finite outputs from the policy of t, got .* for row 1"):
        policy.predict([[0, 0], [10, 10]])


W, B = np.ones((A, D)), np.ones(A)
IMAGE = Box((0.0,) * 48, (1.0,) * 48, (4, 4, 3))
KERNEL = np.ones((2, 3, 2, 2))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "end with a head .* got no layers: add the head"),
        ([Dense(W)], "end with a head .* got dense: add the head"),
        ([Mode(), Dense(W)], "end with a head .* got dense"),
        ([Dense(W), Mode(), Mode()], r"one head, after all other layers, got layer 1 \(mode\) .* before others"),
        ([Dense(W), "tanh", Mode()], "Expected layer 1 of the policy of t to be one of normalise, .* got str"),
        ([Dense(W), Dense(W), Mode()], r"weight of layer 1 \(dense\) .* shape \(out, 3\), got \(3, 5\)"),
        ([Dense(B), Mode()], r"weight of layer 0 \(dense\) .* got \(3,\)"),
        ([Dense(W, np.ones(4)), Mode()], r"bias of layer 0 .* to have shape \(3,\), got \(4,\)"),
        ([Dense(W, np.full(A, np.nan)), Mode()], "Expected finite numbers in bias of layer 0"),
        ([Dense(np.full((A, D), 1e39)), Mode()], "Expected finite numbers in weight of layer 0"),
        ([Dense(None), Mode()], "weight of layer 0 .* an array of real numbers, got object"),
        ([Dense([[1], [2, 3]]), Mode()], "weight of layer 0 .* an array of real numbers"),
        ([Dense(W.astype(complex)), Mode()], "an array of real numbers, got complex128"),
        ([Dense(np.ones((0, D))), Mode()], r"an array of real numbers, got float64 of shape \(0, 5\)"),
        ([Dense(W), Activation("selu"), Mode()], "Expected an activation among tanh, .* got 'selu'"),
        ([Dense(W), Activation(3), Mode()], "`name` in layer 1 .* to be text, got 3"),
        ([Normalise(np.zeros(4), np.ones(D)), Dense(W), Mode()], r"mean of layer 0 .* got \(4,\)"),
        ([Normalise(np.zeros((1, D)), np.ones(D)), Dense(W), Mode()], r"mean of layer 0 .* got \(1, 5\)"),
        ([Normalise(np.zeros(D), np.zeros(D)), Dense(W), Mode()], "scale of layer 0 .* above zero, got 0.0"),
        ([Normalise(np.zeros(D), np.ones(D), 0.0), Dense(W), Mode()], "clip of layer 0 .* above zero, got 0.0"),
        (
            [Normalise(np.zeros(D), np.ones(D), np.inf), Dense(W), Mode()],
            "clip.* to be a finite number or null, got inf",
        ),
        (
            [Normalise(np.zeros(D), np.ones(D), True), Dense(W), Mode()],
            "clip.* to be a finite number or null, got True",
        ),
        ([LayerNorm(np.ones(4)), Dense(W), Mode()], r"weight of layer 0 \(layer_norm\) .* got \(4,\)"),
        ([LayerNorm(epsilon=0.0), Dense(W), Mode()], "epsilon of layer 0"),
        ([BatchNorm(np.ones(D), -np.ones(D)), Dense(W), Mode()], "epsilon of layer 0 .* and no variance below"),
        ([BatchNorm(np.ones(4), np.ones(D)), Dense(W), Mode()], "mean of layer 0"),
        (
            [Dense(np.ones((7, D))), Expectation(np.ones(3)), Mode()],
            r"support of layer 1 .* divides the inputs, \(7,\)",
        ),
        ([Dense(np.ones((9, D))), Expectation(np.ones((3, 1))), Mode()], r"support of layer 1 .* got \(3, 1\)"),
        ([Dense(np.ones((6, D))), Expectation(np.ones(3)), Mode()], "to read 3 outputs for Box"),
        ([cell(A, 4), Mode()], r"input_weight of layer 0 \(gru\) .* \(9, 5\), got \(9, 4\)"),
        ([GRU(np.ones((9, D)), np.ones((9, 4))), Mode()], r"state_weight of layer 0 .* \(12, 4\), got \(9, 4\)"),
        ([cell(A, D)._replace(candidate_bias=np.ones(9)), Mode()], "candidate_bias of layer 0"),
        ([Dense(W[:2]), Mode()], "to read 3 outputs for Box"),
        ([Dense(W), Bins(5)], r"layer 1 \(bins\) .* to read 15 outputs"),
        ([Dense(W), Bins(1)], "bounded actions and at least 2 bins"),
        ([Dense(W), Bins(2.0)], "`count` in layer 1 .* a whole number, got 2.0"),
        ([Dense(W), Mode(np.ones(2))], "log_std of layer 1"),
        ([Dense(W), Mode(np.full(A, 99.0))], "log_std of layer 1 .* at most 80, got 99.0"),
        ([Dense(W), Argmax()], "to fit the task's actions, got Box"),
        ([Dense(W), Bits("no")], "`draws` in layer 1 .* true or false"),
        ([Convolution(KERNEL), Flatten(), Mode()], r"over an image .* here \(5,\)"),
    ],
)
def test_layers_that_do_not_fit(layers, message):
    with pytest.raises(UsageError, match=message):
        Policy(layers, observation=Box.unbounded(D), action=BOX, task="t")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Convolution(np.ones((2, 4, 2, 2))), r"here \(4, 4, 3\), got \(2, 4, 2, 2\)"),
        (Convolution(KERNEL, np.ones(3)), "bias of layer 0"),
        (Convolution(KERNEL, stride=(0, 1)), "stride of layer 0"),
        (Convolution(KERNEL, stride=(1, 1, 1)), "`stride` in layer 0 .* 2 whole numbers"),
        (Convolution(KERNEL, stride=(1.0, 1)), "a whole number, got 1.0"),
        (Convolution(KERNEL, padding=(2, 0, 0, 0)), r"padding of layer 0 .* smaller than the kernel \(2, 2\)"),
        (Convolution(KERNEL, padding=(0, 0, -1, 0)), "padding of layer 0"),
        (Convolution(np.ones((2, 3, 5, 2))), r"a kernel within the image \(4, 4\)"),
        (GRU(np.ones((3, 3)), np.ones((3, 1))), "the input of layer 0 .* to be a vector"),
        (LayerNorm(), "to read 2 outputs"),
    ],
)
def test_image_layers_that_do_not_fit(layer, message):
    with pytest.raises(UsageError, match=message):
        Policy([layer, Mode()], observation=IMAGE, action=Box.unbounded(2), task="t")


@pytest.mark.parametrize(
    ("action", "head", "message"),
    [
        (Discrete(4), Argmax(), r"to read 4 outputs for Discrete\(count=4\), got shape \(3,\)"),
        (MultiDiscrete((2, 2)), Argmax(), "to read 4 outputs"),
        (MultiBinary(2), Bits(), "to read 2 outputs"),
        (Discrete(3), Bits(), "to fit the task's actions"),
        (Discrete(3), Mode(), "to fit the task's actions"),
        (Discrete(3), Bins(2), "to fit the task's actions"),
        (Box.unbounded(3), Squash(), "to have bounded actions"),
        (Box((-1e300,) * 3, (1e300,) * 3), Squash(), "to have bounded actions"),
        (HALF_OPEN, Bins(2), "to have bounded actions"),
        (Box((0.0, 0.0, np.nan), (1.0, 1.0, 1.0)), Mode(), "Expected actions .* that is not empty"),
        (Box((0.0, 0.0, 2.0), (1.0, 1.0, 1.0)), Mode(), "Expected actions .* that is not empty"),
        (Discrete(0), Argmax(), "Expected actions .* that is not empty"),
        (MultiDiscrete((3, 0)), Argmax(), "Expected actions .* that is not empty"),
    ],
)
def test_heads_that_do_not_fit_the_actions(action, head, message):
    with pytest.raises(UsageError, match=message):
        Policy([Dense(W), head], observation=Box.unbounded(D), action=action, task="t")


def test_metadata_is_plain_json():
    nested = {"a": 1}
    for _ in range(2000):
        nested = {"a": nested}
    for odd in ({"a": object()}, {"a": np.nan}, nested, {"a": "\ud800"}, {"a": 10**30}):
        with pytest.raises(UsageError, match=r"Expected plain text, .* as the metadata of the policy of Probe-v0"):
            make(metadata=odd)


# --- files ---


@every_variant
def test_saved_and_loaded_policies_act_alike_to_the_bit(tmp_path, variant):
    policy = VARIANTS[variant]()
    assert policy.save(tmp_path / "run" / "policy") == tmp_path / "run" / "policy"
    batch = observations(policy, 30)
    for path in (tmp_path / "run" / "policy", tmp_path / "run"):
        loaded = Policy.load(path)
        for deterministic in (True, False):
            answers = [
                one.predict(batch, deterministic=deterministic, rng=np.random.default_rng(0))[0].tobytes()
                for one in (policy, loaded)
            ]
            assert answers[0] == answers[1]
        assert (loaded.action, loaded.observation, loaded.task) == (policy.action, policy.observation, policy.task)
        assert type(loaded.observation) is type(policy.observation)


def test_the_same_answer_in_another_process(tmp_path):
    policy = make(metadata={"run": "r", "env_steps": 5})
    policy.save(tmp_path)
    code = (
        "import sys; from workhorse import Policy; import numpy as np; "
        f"p = Policy.load({str(tmp_path)!r}); "
        "a, _ = p.predict(np.linspace(-1, 1, 5), deterministic=True); "
        "assert 'jax' not in sys.modules; print(a.tobytes().hex(), p.metadata['env_steps'])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == [policy.predict(np.linspace(-1, 1, 5))[0].tobytes().hex(), "5"]


def test_the_files_are_strict_json_and_no_pickle(tmp_path):
    VARIANTS["unbounded"]().save(tmp_path / "policy")
    assert sorted(os.listdir(tmp_path / "policy")) == ["policy.json", "policy.safetensors"]
    record = json.loads((tmp_path / "policy" / "policy.json").read_text(), parse_constant=pytest.fail)
    assert record["action"]["low"] == ["-inf", -1.0, "-inf"] and record["observation"]["low"] == "-inf"
    assert record["layers"][:2] == [{"kind": "normalise", "clip": 1.5}, {"kind": "dense"}]
    for file in (tmp_path / "policy").iterdir():
        content = file.read_bytes()
        assert b"\x80\x04\x95" not in content and b"numpy.core" not in content
        with pytest.raises(Exception):  # noqa: B017
            list(pickletools.genops(content))


def test_saving_replaces_a_policy_and_nothing_else(tmp_path):
    make(seed=0).save(tmp_path / "policy")
    other = make(seed=5)
    other.save(tmp_path / "policy")
    assert (Policy.load(tmp_path).layers[1].weight == other.layers[1].weight).all() and os.listdir(tmp_path) == [
        "policy"
    ]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(
        UsageError, match=r"holds other files: saving would delete them. Save to .*/thesis/policy instead"
    ):
        other.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter").exists()
    with pytest.raises(UsageError, match=r"Could not write the policy to .*expected a folder there, found a file"):
        other.save(tmp_path / "thesis" / "chapter")


def test_a_full_disk_leaves_the_old_policy(tmp_path, monkeypatch):
    old = make()
    old.save(tmp_path / "policy")

    def failing(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(UsageError, match=r"Could not write the policy to .*is full"):
            make(seed=5).save(tmp_path / "policy")
    assert os.listdir(tmp_path) == ["policy"] and (Policy.load(tmp_path).layers[1].weight == old.layers[1].weight).all()


def test_where_there_is_no_policy(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    for path, message in [
        ("nothing", "Expected a policy or a run in .*/nothing, which does not exist. `workhorse runs`"),
        ("file", "Expected a policy folder, got the file .*/file"),
        ("run", "Expected a policy in the run .*/run, which has not written one yet"),
        (".", "Expected policy.json in .*, found none"),
    ]:
        with pytest.raises(UsageError, match=message):
            Policy.load(tmp_path / path)


def test_another_tasks_policy_is_refused(tmp_path):
    make().save(tmp_path)
    fits = EnvSpec("Probe-v0", Box.unbounded(D), Box.unbounded(A), None)
    assert Policy.load(tmp_path, task_spec=fits).task == "Probe-v0"
    wide = EnvSpec("Ant-v5", Box.unbounded(105), BOX, None)
    with pytest.raises(
        UsageError, match=r"Expected observations of shape \(5,\), as in Probe-v0, .* \(105,\) in Ant-v5"
    ):
        Policy.load(tmp_path, task_spec=wide)
    for action in (Discrete(3), Box.unbounded(2)):
        with pytest.raises(UsageError, match=r"Expected a task with the actions of Probe-v0, Box.* got .* in Other-v0"):
            Policy.load(tmp_path, task_spec=EnvSpec("Other-v0", Box.unbounded(D), action, None))


CRASHES = """
    import builtins, os, sys
    import numpy as np
    from workhorse.core.layers import Dense, Mode
    from workhorse.core.spec import Box
    from workhorse.runs.policy import Policy

    folder = sys.argv[1]
    os.fsync = lambda descriptor: None

    def policy(value):
        layers = [Dense(np.full((1, 2), value)), Mode()]
        return Policy(layers, observation=Box.unbounded(2), action=Box.unbounded(1), task="t")

    seen = set()
    for call in range(1, 200):
        policy(1.0).save(folder)
        process = os.fork()
        if process == 0:
            count = 0
            def counted(function):
                def wrapper(*arguments, **options):
                    global count
                    count += 1
                    if count == call:
                        os._exit(9)
                    return function(*arguments, **options)
                return wrapper
            for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
                setattr(os, name, counted(getattr(os, name)))
            builtins.open = counted(builtins.open)
            policy(2.0).save(folder)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        seen.add(float(Policy.load(folder).predict([1, 0])[0][0]))
        if code == 0:
            break
    assert code == 0 and seen == {1.0, 2.0}, (code, seen)
    print(call)
"""


def test_a_crash_while_saving_leaves_a_whole_policy(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(CRASHES), str(tmp_path / "policy")]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) > 8
