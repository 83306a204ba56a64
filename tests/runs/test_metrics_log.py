"""Metrics keep their types, survive a crash whole, and repeat no iteration after a resume."""

import errno
import math
import os

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from workhorse.core.errors import UsageError
from workhorse.runs.metrics import MetricsLog, read_metrics


def events(folder):
    """(step, tag, value) of every scalar, and the steps purged from, file by file in the order of writing.

    The number of the iteration, which every event carries, is left out.
    """
    from tensorboardX.proto.event_pb2 import Event

    scalars, purges = [], []
    for file in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content, at = file.read_bytes(), 0
        while at < len(content):  # TFRecord: length, its CRC, data, its CRC
            length = int.from_bytes(content[at : at + 8], "little")
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 12 + length + 4
            scalars += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            scalars = [one for one in scalars if one[1] != "time/iterations"]
            purges += [event.step] if event.HasField("session_log") else []
    return scalars, purges


def test_rows_come_back_with_their_types(tmp_path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.append(1, {"return": 1.5, "steps": 2**40, "digest": 2**64 - 1, "name": "a", "late": None, "flag": True})
    log.append(2, {"return": jnp.float32(2.5), "steps": np.int32(7), "digest": 10, "extra": math.nan, "name": "b"})
    log.flush()
    log.append(3, {"return": -math.inf, "late": 4})
    log.close()
    rows = read_metrics(tmp_path)
    assert rows.schema["iteration"] == rows.schema["steps"] == rows.schema["late"] == pl.Int64
    assert rows["iteration"].to_list() == [1, 2, 3] and rows["steps"].to_list() == [2**40, 7, None]
    assert rows["return"].to_list() == [1.5, 2.5, -math.inf]
    assert rows["digest"].to_list() == ["ffffffffffffffff", "000000000000000a", None]
    assert rows["late"].to_list() == [None, None, 4] and rows["flag"].to_list() == [1, None, None]
    assert rows["extra"][0] is None and math.isnan(rows["extra"][1])
    assert read_metrics(tmp_path / "metrics.parquet").equals(rows)


def test_integers_and_reals_in_one_column_become_reals(tmp_path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.append(1, {"a": 1, "b": 1})
    log.append(2, {"a": 0.5, "b": 2})
    log.flush()
    log.append(3, {"a": 2, "b": 0.5})
    log.flush()
    rows = read_metrics(tmp_path)
    assert rows["a"].to_list() == [1.0, 0.5, 2.0] and rows["b"].to_list() == [1.0, 2.0, 0.5]


def test_a_resumed_log_repeats_no_iteration(tmp_path):
    log = MetricsLog(tmp_path)
    for i in range(1, 6):
        log.append(i, {"a": float(i)})
    log.close()
    log = MetricsLog(tmp_path, resume_from=3)
    assert log.last_iteration == 3
    for i in (4, 5, 6):
        log.append(i, {"a": 10.0 * i})
    log.close()
    rows = read_metrics(tmp_path)
    assert rows["iteration"].to_list() == [1, 2, 3, 4, 5, 6]
    assert rows["a"].to_list() == [1.0, 2.0, 3.0, 40.0, 50.0, 60.0]
    scalars, purges = events(tmp_path)
    assert purges == [4], "a TensorBoard that is looking on hides what it has read"
    assert scalars == [(i, "train/a", float(i)) for i in range(1, 4)] + [(i, "train/a", 10.0 * i) for i in (4, 5, 6)]


def test_resuming_before_the_first_flush_or_at_zero(tmp_path):
    log = MetricsLog(tmp_path, resume_from=0, tensorboard=False)
    assert log.last_iteration is None
    log.append(1, {"a": 1})
    log.flush()
    log = MetricsLog(tmp_path, resume_from=0, tensorboard=False)
    assert log.last_iteration is None
    log.append(1, {"a": 0.5})
    log.flush()
    assert read_metrics(tmp_path)["a"].to_list() == [0.5]


def test_events_are_lazy_and_hold_numbers_alone(tmp_path):
    log = MetricsLog(tmp_path)
    log.append(1, {"a": 1, "b": "text", "digest": 3, "nan": math.nan, "none": None})
    assert not (tmp_path / "tensorboard").exists()
    log.close()
    scalars, purges = events(tmp_path)
    assert scalars[0] == (1, "train/a", 1.0) and scalars[1][1] == "train/nan" and math.isnan(scalars[1][2])
    assert len(scalars) == 2 and purges == []


def test_nothing_appended_is_a_readable_file(tmp_path):
    MetricsLog(tmp_path).close()
    assert len(read_metrics(tmp_path)) == 0
    MetricsLog(tmp_path, resume_from=0).close()


def test_rows_are_refused_that_cannot_be_kept(tmp_path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.append(2, {"a": 1})
    with pytest.raises(ValueError, match=r"increasing iterations, got 2 after 2"):
        log.append(2, {"a": 1})
    with pytest.raises(ValueError, match=r"must not name `iteration`"):
        log.append(3, {"iteration": 1})
    with pytest.raises(TypeError, match=r"must be a scalar, got ndarray of shape \(2,\) for 'a'"):
        log.append(3, {"a": np.zeros(2)})
    log.append(3, {"a": "text"})
    with pytest.raises(TypeError, match=r"'a' must be all numbers"):
        log.flush()


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_integers_that_do_not_fit_are_refused(tmp_path, value):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.append(1, {"a": value})
    with pytest.raises(TypeError, match=r"'a' must be all numbers \(integers below 2\*\*63\)"):
        log.flush()


def test_a_type_that_changes_between_flushes_is_refused(tmp_path):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.append(1, {"a": 1})
    log.flush()
    log.append(2, {"a": "text"})
    with pytest.raises(TypeError, match=r"all numbers or all strings"):
        log.flush()


def test_a_new_run_refuses_old_rows(tmp_path):
    MetricsLog(tmp_path, tensorboard=False).close()
    with pytest.raises(UsageError, match=r"Expected no metrics in .*metrics.parquet for a new run, found some: resume"):
        MetricsLog(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"\0" * 100, None])
def test_a_damaged_file_is_said(tmp_path, damage):
    log = MetricsLog(tmp_path, tensorboard=False)
    log.append(1, {"a": 1.0})
    log.close()
    file = tmp_path / "metrics.parquet"
    file.write_bytes(file.read_bytes()[:-10] if damage is None else damage)
    for attempt in (lambda: read_metrics(tmp_path), lambda: MetricsLog(tmp_path, resume_from=1)):
        message = r"(Expected a run's metrics in .*, but the file is damaged|as it was written, but .*) .* move it away"
        with pytest.raises(UsageError, match=message):
            attempt()


def test_another_programs_parquet_and_none_at_all(tmp_path):
    with pytest.raises(UsageError, match=r"Expected metrics in .*metrics.parquet, found none"):
        read_metrics(tmp_path)
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "metrics.parquet")
    with pytest.raises(UsageError, match=r"another program's"):
        read_metrics(tmp_path)


def test_a_full_disk_loses_no_row(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path)
    log.append(1, {"a": 1})
    log.flush()
    log.append(2, {"a": 2})

    def failing(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(UsageError, match=r"Could not write the metrics to .* is full"):
            log.flush()
    assert read_metrics(tmp_path)["a"].to_list() == [1]
    log.close()
    assert read_metrics(tmp_path)["a"].to_list() == [1, 2]
    assert events(tmp_path)[0] == [(1, "train/a", 1.0), (2, "train/a", 2.0)]


def test_missing_tensorboardx_is_said(tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"Expected tensorboardX .* `pip install tensorboardX`"):
        MetricsLog(tmp_path)
    MetricsLog(tmp_path, tensorboard=False)
