"""The layer of PID loops in an artefact: against a loop over time, in files, in ONNX, and its refusals."""

import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.core.layers import Dense, Mode, Pid, state_size
from workhorse.core.spec import Box
from workhorse.runs.policy import Policy

GAINS = np.array([[1.5, -2.0], [0.3, 0.0], [4.0, 0.5]])
LIMIT = np.array([2.0, 9.0])


def policy(*layers):
    loops = layers or (Dense(np.eye(2, 3)), Pid(*GAINS, LIMIT), Mode())
    return Policy(loops, observation=Box.unbounded(3), action=Box.unbounded(2), task="Tank-v0")


def by_hand(rows):
    """The same loops, component by component."""
    found = np.zeros((len(rows), 2))
    for loop in range(2):
        p, i, d = GAINS[:, loop]
        total, before = 0.0, None
        for time, row in enumerate(rows):
            error = row[loop]
            total = np.clip(total + error, -LIMIT[loop], LIMIT[loop])
            found[time, loop] = p * error + i * total + (d * (error - before) if before is not None else 0.0)
            before = error
    return found


ROWS = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)


def test_loops_are_those_by_hand_and_start_again_with_an_episode():
    tank, memory, found = policy(), None, []
    for time, row in enumerate(ROWS):
        action, memory = tank.predict(row, memory, episode_start=time == 12)
        found.append(action)
    np.testing.assert_allclose(found, np.concatenate([by_hand(ROWS[:12]), by_hand(ROWS[12:])]), atol=1e-4)
    assert tank.is_recurrent and state_size(tank.layers[1]) == 5 == len(memory[0])
    batch, after = tank.predict(ROWS)
    np.testing.assert_allclose(batch, [by_hand([row])[0] for row in ROWS], atol=1e-5)
    assert after[0].shape == (30, 5)


def test_loops_are_stored(tmp_path):
    policy().save(tmp_path / "policy")
    read = Policy.load(tmp_path / "policy")
    memory = None
    for row, expected in zip(ROWS, by_hand(ROWS), strict=True):
        action, memory = read.predict(row, memory)
        np.testing.assert_allclose(action, expected, atol=1e-4)


def test_loops_run_in_onnx():
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from workhorse.runs.onnx_model import onnx_bytes

    model = runtime.InferenceSession(onnx_bytes(policy()), providers=["CPUExecutionProvider"])
    state = np.zeros((1, 5), np.float32)
    for row, expected in zip(ROWS, by_hand(ROWS), strict=True):
        action, state = model.run(None, {"observation": row[None], "state_0": state})
        np.testing.assert_allclose(action[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Pid(GAINS[0], GAINS[1], GAINS[2, :1], LIMIT), r"derivative of layer 1 \(pid\) .* to have shape \(2,\), got"),
        (Pid(*GAINS, np.array([1.0, 0.0])), r"limit of layer 1 \(pid\) .* to be above zero, got 0.0"),
        (Pid(*GAINS, np.array([1.0, np.inf])), r"Expected finite numbers in limit of layer 1 \(pid\)"),
    ],
)
def test_loops_that_do_not_fit(layer, message):
    with pytest.raises(UsageError, match=message):
        policy(Dense(np.eye(2, 3)), layer, Mode())


def test_loops_read_vectors():
    image = Box((0.0,) * 4, (1.0,) * 4, (2, 2))
    with pytest.raises(UsageError, match=r"the input of layer 0 \(pid\) .* to be a vector, got shape \(2, 2\)"):
        Policy((Pid(*GAINS, LIMIT), Mode()), observation=image, action=Box.unbounded(2), task="t")
