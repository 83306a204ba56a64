"""An exported ONNX model acts as its policy does."""

import subprocess
import sys

import numpy as np
import pytest

from tests.runs.policies import IMAGE, VARIANTS, D, make, observations
from workhorse.cli.main import main
from workhorse.core.errors import UsageError
from workhorse.core.layers import Argmax, BatchNorm, Dense, LayerNorm
from workhorse.core.spec import Discrete
from workhorse.runs.onnx_model import onnx_bytes
from workhorse.runs.policy import Policy

onnx = pytest.importorskip("onnx", reason="the extra workhorse[onnx] is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra workhorse[onnx] is not installed")


def session(model):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def same(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "gru"])
@pytest.mark.parametrize("rows", [1, 50])
def test_onnxruntime_acts_as_the_policy(variant, rows):
    policy = VARIANTS[variant]()
    batch = observations(policy, rows).astype(np.float32)
    (found,) = session(onnx_bytes(policy)).run(None, {"observation": batch})
    same(found, policy.predict(batch)[0])


def test_memory_goes_in_and_out():
    policy = VARIANTS["gru"]()
    model = session(onnx_bytes(policy))
    assert [one.name for one in model.get_inputs()] == ["observation", "state_0", "state_1"]
    assert [one.name for one in model.get_outputs()] == ["action", "next_state_0", "next_state_1"]
    state, theirs = None, [np.zeros((3, 6), np.float32), np.zeros((3, 4), np.float32)]
    for step in observations(policy, 3 * 8).astype(np.float32).reshape(8, 3, D):
        action, state = policy.predict(step, state)
        found, *theirs = model.run(None, {"observation": step, "state_0": theirs[0], "state_1": theirs[1]})
        same(found, action)
        for mine, other in zip(state, theirs, strict=True):
            same(other, mine)


def test_normalisations_without_weights():
    rng = np.random.default_rng(0)
    layers = [
        BatchNorm(rng.normal(size=3), rng.uniform(1, 2, 3)),
        LayerNorm(epsilon=0.1),
        *VARIANTS["pixels"]().layers[6:7],
    ]
    layers += [Dense(rng.normal(size=(4, 240))), Argmax()]
    policy = Policy(layers, observation=IMAGE, action=Discrete(4), task="t")
    batch = rng.normal(size=(40, 10, 8, 3)).astype(np.float32)
    same(session(onnx_bytes(policy)).run(None, {"observation": batch})[0], policy.predict(batch)[0])


def test_equal_policies_give_equal_files_in_any_process(tmp_path):
    policy = VARIANTS["pixels"]()
    policy.save(tmp_path / "policy")
    code = (
        "import sys, hashlib; from workhorse import Policy; from workhorse.runs.onnx_model import onnx_bytes; "
        "sys.stdout.write(hashlib.sha256(onnx_bytes(Policy.load(sys.argv[1]))).hexdigest())"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1
    assert onnx_bytes(make(seed=0)) == onnx_bytes(make(seed=0)) != onnx_bytes(make(seed=5))


def test_the_model_says_what_it_is_of():
    model = onnx.load_from_string(onnx_bytes(make(metadata={"run": "r", "env_steps": 5})))
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about == {"task": "Probe-v0", "metadata": '{"env_steps": 5, "run": "r"}'}
    assert model.opset_import[0].version == 17 and model.producer_name == "workhorse"


def test_the_command_writes_beside_the_policy(tmp_path, capsys, monkeypatch):
    policy = make()
    policy.save(tmp_path / "run" / "policy")
    assert main(["export", str(tmp_path / "run"), "--to", "onnx"]) == 0
    written = tmp_path / "run" / "policy.onnx"
    assert str(written) in capsys.readouterr().out
    assert written.read_bytes() == onnx_bytes(policy)
    policy.save(tmp_path / "run" / "policy")  # a later save of the run leaves the model alone
    assert written.exists()
    assert main(["export", str(tmp_path / "run" / "policy"), "--to", "onnx", "--output", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine").read_bytes() == written.read_bytes()
    monkeypatch.chdir(tmp_path / "run" / "policy")
    assert main(["export", ".", "--to", "onnx"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "Expected --to, which is missing"),
        (["RUN", "--to", "tflite"], "--to must be one of onnx: got 'tflite'"),
        (["RUN/nothing", "--to", "onnx"], "which does not exist"),
        (["RUN", "--to", "onnx", "--output", "RUN"], "--output must be a file to write, got the folder"),
        (["RUN", "--to", "onnx", "--output", "RUN/no/where"], "Could not write the model to .*the folder is gone"),
    ],
)
def test_what_cannot_be_exported(tmp_path, capsys, arguments, message):
    make().save(tmp_path / "policy")
    assert main(["export", *(word.replace("RUN", str(tmp_path)) for word in arguments)]) == 2
    with pytest.raises(UsageError, match=message):
        raise UsageError(capsys.readouterr().err)


def test_without_the_extra_a_sentence_names_it(tmp_path, capsys, monkeypatch):
    make().save(tmp_path / "policy")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", str(tmp_path), "--to", "onnx"]) == 2
    assert "not installed: pip install 'workhorse[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "policy.onnx").exists()
