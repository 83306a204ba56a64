"""The policy artefact acts as its equations say, and refuses what it cannot act on."""

import json
import os
import pickletools
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.runs import policy as policy_module
from workhorse.runs.policy import Policy

D, H, A, K = 5, 8, 3, 7
BOX = Box((-1.0, -0.5, -2.0), (1.0, 0.5, 0.1))


def parts(outputs, seed=0):
    noise = np.random.default_rng(seed)
    layers = [noise.normal(size=(H, D)), noise.normal(size=(outputs, H))]
    return layers, [noise.normal(size=H), noise.normal(size=outputs)]


def make(action=BOX, outputs=A, normalise=True, seed=0, **options) -> Policy:
    layers, biases = parts(outputs, seed)
    if normalise:
        noise = np.random.default_rng(seed + 1)
        options = {"mean": noise.normal(size=D), "scale": noise.uniform(0.1, 2, D), "observation_clip": 1.5} | options
    return Policy(layers, biases, action=action, task="Probe-v0", **options)


VARIANTS = {
    "box": lambda: make(),
    "plain": lambda: make(normalise=False),
    "unclipped": lambda: make(observation_clip=None),
    "bins": lambda: make(outputs=A * K, action_bins=K),
    "discrete": lambda: make(Discrete(4), 4),
    "unbounded": lambda: make(Box((-np.inf, -1.0, -np.inf), (np.inf, np.inf, 1.0))),
    "linear": lambda: Policy([np.eye(3, D)], [None], action=BOX, task="Probe-v0"),
}


def by_hand(policy: Policy, observation: np.ndarray) -> np.ndarray:
    """The documented equations, one observation and one neuron at a time, in float64."""
    z = observation.astype(float)
    if policy.mean is not None:
        assert policy.scale is not None
        z = (z - policy.mean) / policy.scale
        if policy.observation_clip is not None:
            z = np.minimum(np.maximum(z, -policy.observation_clip), policy.observation_clip)
    for i, weight in enumerate(policy.weights):
        bias = policy.biases[i]
        z = np.array([sum(float(w) * x for w, x in zip(row, z, strict=True)) for row in weight])
        z = z if bias is None else z + bias
        if i < len(policy.weights) - 1:
            z = np.array([np.tanh(x) for x in z])
    if isinstance(policy.action, Discrete):
        return np.array(max(range(len(z)), key=lambda i: z[i]))
    if policy.action_bins is None:
        return np.array([min(max(z[i], policy.action.low[i]), policy.action.high[i]) for i in range(len(z))])
    chosen = []
    for i in range(policy.action.size):
        scores = list(z[i * policy.action_bins : (i + 1) * policy.action_bins])
        low, high = policy.action.low[i], policy.action.high[i]
        chosen.append(low + (high - low) * scores.index(max(scores)) / (policy.action_bins - 1))
    return np.array(chosen)


@pytest.mark.parametrize("variant", VARIANTS)
def test_actions_follow_the_equations(variant):
    policy = VARIANTS[variant]()
    batch = np.random.default_rng(9).normal(size=(20, D)) * 3
    actions, _ = policy.predict(batch)
    for row, observation in enumerate(batch):
        expected = by_hand(policy, observation)
        np.testing.assert_allclose(actions[row], expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(policy.predict(observation)[0], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_types_are_those_of_stable_baselines(variant):
    policy = VARIANTS[variant]()
    discrete = isinstance(policy.action, Discrete)
    single, state = policy.predict(np.zeros(D), state="memory", episode_start=np.ones(1), deterministic=False)
    assert isinstance(single, np.ndarray) and state == "memory"
    assert single.shape == (() if discrete else (A,))
    assert single.dtype == (np.int64 if discrete else np.float32)
    for rows in (0, 1, 6):
        batch, state = policy.predict(np.zeros((rows, D)))
        assert batch.shape == ((rows,) if discrete else (rows, A)) and batch.dtype == single.dtype and state is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_of_one_gives_the_bits_of_a_single_one(variant):
    policy = VARIANTS[variant]()
    for observation in np.random.default_rng(3).normal(size=(50, D)):
        single, batch = policy.predict(observation)[0], policy.predict(observation[None])[0]
        assert single.tobytes() == batch[0].tobytes()


def test_actions_respect_their_bounds_and_infinite_bounds_do_not_clip():
    batch = np.random.default_rng(4).normal(size=(200, D)) * 10
    actions = make().predict(batch)[0]
    assert (actions >= np.array(BOX.low, np.float32)).all() and (actions <= np.array(BOX.high, np.float32)).all()
    assert (actions == np.array(BOX.high, np.float32)).any()
    free = Policy([100 * np.eye(3, D)], [None], action=Box((-np.inf, -1.0, 0.0), (np.inf, np.inf, 1.0)), task="t")
    np.testing.assert_array_equal(free.predict(-np.ones(D))[0], [-100, -1, 0])
    np.testing.assert_array_equal(free.predict(np.ones(D))[0], [100, 100, 1])


def test_bins_are_evenly_spaced_ends_included_and_ties_go_low():
    policy = Policy(
        [np.eye(6)], [None], action=Box((-1.0, 0.0), (1.0, 0.4)), action_bins=3, task="t"
    )  # the observation is the scores
    assert policy.predict([0, 0, 1, 0, 1, 0])[0].tolist() == [1.0, np.float32(0.2)]
    assert policy.predict([1, 0, 0, 0, 0, 1])[0].tolist() == [-1.0, np.float32(0.4)]
    assert policy.predict([0, 0, 0, 5, 5, 5])[0].tolist() == [-1.0, 0.0]


def test_the_arithmetic_is_float32():
    policy = Policy([np.ones((1, 2))], [None], action=Box.unbounded(1), task="t")
    assert policy.predict(np.array([2.0**24, 1.0]))[0] == 2**24  # in float64 it would be 2**24 + 1
    assert policy.predict(np.array([3, 4], np.int16))[0] == 7 and policy.predict(np.array([True, True]))[0] == 2


def test_the_policy_is_a_copy():
    layers, biases = parts(A)
    policy = Policy(layers, biases, action=BOX, task="t")
    before = policy.predict(np.ones(D))[0]
    layers[0][:] = 0
    assert (policy.predict(np.ones(D))[0] == before).all()
    with pytest.raises(ValueError, match=r"read-only"):
        policy.weights[0][0, 0] = 1


def test_jax_arrays_will_do():
    jnp = pytest.importorskip("jax.numpy")
    layers, biases = parts(A)
    policy = Policy([jnp.asarray(w) for w in layers], [jnp.asarray(b) for b in biases], action=BOX, task="t")
    assert isinstance(policy.weights[0], np.ndarray) and policy.weights[0].dtype == np.float32


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros(4), r"Expected an observation of shape \(5,\) or \(N, 5\), got \(4,\)\. Pass the flat"),
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


def test_an_output_that_overflows_is_not_passed_on():
    policy = Policy([np.full((1, 2), 1e38)], [None], action=Box.unbounded(1), task="t")
    with pytest.raises(UsageError, match=r"Expected finite outputs from the policy of t, got .* for row 1"):
        policy.predict([[0, 0], [10, 10]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": []}, "at least one layer, got 0 layers and 2 biases"),
        ({"biases": [None]}, "got 2 layers and 1 biases"),
        ({"layers": [np.ones((H, D)), np.ones((A, H + 1))]}, r"layer 1 .* read the 8 outputs .* got .*\(3, 9\)"),
        ({"layers": [np.ones((H, D)), np.ones(H)]}, "Expected layer 1 of a policy to be a real array of rank 2"),
        ({"biases": [np.ones(H + 1), None]}, r"Expected bias 0 .* to have shape \(8,\), got \(9,\)"),
        ({"biases": [np.full(H, np.nan), None]}, "Expected finite numbers in bias 0 of a policy, got NaN or infinity"),
        ({"layers": [np.full((H, D), 1e39), np.ones((A, H))]}, "Expected finite numbers in layer 0"),
        ({"activation": "gelu"}, "Expected an activation among tanh, relu, got 'gelu'"),
        ({"mean": np.zeros(D)}, "Expected mean and scale together"),
        ({"observation_clip": 5.0}, "observation_clip only with them"),
        ({"mean": np.zeros(4), "scale": np.ones(4)}, r"Expected mean of shape \(5,\) .* got \(4,\)"),
        ({"mean": np.zeros(D), "scale": np.zeros(D)}, "Expected scale above zero .* got 0.0 in component 0"),
        ({"mean": np.zeros(D), "scale": np.ones(D), "observation_clip": 0.0}, "observation_clip above zero .* got 0.0"),
        ({"action": Discrete(4)}, r"to have 4 outputs for Discrete\(count=4\), got 3"),
        ({"action": Box.unbounded(2)}, "to have 2 outputs for Box"),
        ({"action": Box((0.0,), (1.0, 1.0, 1.0))}, "as many lower as upper bounds .* got 1 and 3"),
        ({"action_bins": 5}, "to have 15 outputs for Box.* with 5 bins a component, got 3"),
        ({"action_bins": 1}, "Expected action_bins of at least 2 with a bounded Box .* action_bins=1"),
        ({"action": Discrete(3), "action_bins": 3}, "Expected action_bins of at least 2 with a bounded Box"),
        ({"action": Box.unbounded(3), "action_bins": 3}, "with a bounded Box"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    layers, biases = parts(A)
    options = {"layers": layers, "biases": biases, "action": BOX, "task": "t"} | changes
    with pytest.raises(UsageError, match=message):
        Policy(**options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded_policies_act_alike_to_the_bit(tmp_path, variant):
    policy = VARIANTS[variant]()
    assert policy.save(tmp_path / "run" / "policy") == tmp_path / "run" / "policy"
    batch = np.random.default_rng(1).normal(size=(30, D))
    for path in (tmp_path / "run" / "policy", tmp_path / "run"):
        loaded = Policy.load(path)
        assert loaded.predict(batch)[0].tobytes() == policy.predict(batch)[0].tobytes()
        assert (loaded.action, loaded.task, loaded.action_bins) == (policy.action, policy.task, policy.action_bins)


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
    assert record["action"]["low"] == ["-inf", -1.0, "-inf"] and record["layers"][0] == {
        "out": 8,
        "in": 5,
        "bias": True,
    }
    for file in (tmp_path / "policy").iterdir():
        content = file.read_bytes()
        assert b"\x80\x04\x95" not in content and b"numpy.core" not in content
        with pytest.raises(Exception):  # noqa: B017
            list(pickletools.genops(content))


def test_saving_replaces_a_policy_and_nothing_else(tmp_path):
    make(seed=0).save(tmp_path / "policy")
    other = make(seed=5)
    other.save(tmp_path / "policy")
    assert (Policy.load(tmp_path).weights[0] == other.weights[0]).all() and os.listdir(tmp_path) == ["policy"]
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
    assert os.listdir(tmp_path) == ["policy"] and (Policy.load(tmp_path).weights[0] == old.weights[0]).all()


def edit(folder, **changes):
    file = folder / "policy.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def cut(folder):
    file = folder / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def flip(folder):
    file = folder / "policy.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "it is damaged .policy.safetensors does not have the SHA-256 it was written with"),
        (flip, "it is damaged .policy.safetensors does not have the SHA-256"),
        (lambda f: os.remove(f / "policy.safetensors"), "it is damaged .policy.safetensors is missing"),
        (lambda f: (f / "policy.json").write_text("{"), "policy.json cannot be read"),
        (lambda f: (f / "policy.json").write_text("[]"), "Expected a Workhorse policy in .* another program's JSON"),
        (lambda f: edit(f, format=2), "Expected policy format 1 in .*policy.json, got 2: another version"),
        (lambda f: edit(f, layers=[]), "got sizes that do not fit"),
        (lambda f: edit(f, layers=3), "it is damaged .policy.json: TypeError"),
        (lambda f: edit(f, observation_size=9), "policy.json and policy.safetensors disagree"),
        (lambda f: edit(f, action={"type": "discrete", "count": 9}), "sizes that do not fit. Expected the last layer"),
        (lambda f: edit(f, action={"type": "box", "low": ["x"], "high": [1]}), "it is damaged"),
        (lambda f: edit(f, normaliser=False, observation_clip=None), "disagree"),
        (lambda f: edit(f, activation="selu"), "Expected an activation among tanh, relu, got 'selu'"),
        (lambda f: edit(f, sha256=None), "does not have the SHA-256"),
    ],
)
def test_damaged_artefacts(tmp_path, damage, message):
    make().save(tmp_path / "policy")
    damage(tmp_path / "policy")
    with pytest.raises(UsageError, match=message):
        Policy.load(tmp_path / "policy")


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
    with pytest.raises(UsageError, match=r"Expected observations of 5 components, as in Probe-v0, .* 105 in Ant-v5"):
        Policy.load(tmp_path, task_spec=wide)
    for action in (Discrete(3), Box.unbounded(2)):
        with pytest.raises(UsageError, match=r"Expected a task with the actions of Probe-v0, Box.* got .* in Other-v0"):
            Policy.load(tmp_path, task_spec=EnvSpec("Other-v0", Box.unbounded(D), action, None))


def test_metadata_is_plain_json():
    with pytest.raises((TypeError, ValueError)):
        make(metadata={"a": object()})


CRASHES = """
    import builtins, os, sys
    import numpy as np
    from workhorse.core.spec import Box
    from workhorse.runs.policy import Policy

    folder = sys.argv[1]
    os.fsync = lambda descriptor: None

    def policy(value):
        return Policy([np.full((1, 2), value)], [None], action=Box.unbounded(1), task="t")

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


def test_format_is_what_the_file_says(tmp_path, monkeypatch):
    make().save(tmp_path)
    monkeypatch.setattr(policy_module, "FORMAT", 3)
    with pytest.raises(UsageError, match=r"Expected policy format 3 in .*, got 1"):
        Policy.load(tmp_path)
