"""What a trust region promised, and what was seen."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from workhorse.diagnostics.trust_region import trust_region


def seen(tmp_path, ratios):
    table = pl.DataFrame({"iteration": np.arange(len(ratios)), "mean_kl": np.full(len(ratios), 0.01)})
    table.with_columns(pl.Series("max_ratio", ratios, dtype=pl.Float64)).write_parquet(tmp_path / "metrics.parquet")
    manifest = SimpleNamespace(settings={"ratio_clip": 0.2}, algorithm="ppo")
    return SimpleNamespace(path=tmp_path, manifest=lambda: manifest)


def test_a_ratio_beyond_all_numbers_is_the_worst_violation_and_not_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "workhorse.diagnostics.trust_region.read_metrics",
        lambda folder: pl.read_parquet(folder.path / "metrics.parquet"),
    )
    promises = trust_region(seen(tmp_path, [1.1] * 5 + [np.inf] * 3 + [np.nan] * 2))
    ratio = next(promise for promise in promises if promise.quantity == "greatest ratio")
    assert ratio.violations == pytest.approx(3 / 8) and ratio.greatest == np.inf and ratio.missing == 2
    assert "greatest inf, not a number in 2 more iterations; above 1.2 in 38%" in ratio.sentence
    kl = next(promise for promise in promises if promise.quantity == "mean KL")
    assert kl.missing == 0 and "not a number" not in kl.sentence
