"""Sensitivity to hyper-parameters: the published values, from the published table."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from workhorse.statistics.sensitivity import normalise, sensitivity

AXES = ["gae_lambda", "ent_coef", "actor_lr", "critic_lr"]


def performance(algorithm):
    table = pl.read_parquet(Path(__file__).parent / "data" / "sensitivity.parquet").filter(alg_type=algorithm)
    places = [sorted(table[name].unique()) for name in ("env_name", *AXES)]
    grid = np.full([len(place) for place in places], np.nan)
    for row in table.iter_rows(named=True):
        grid[tuple(place.index(row[name]) for name, place in zip(("env_name", *AXES), places, strict=True))] = row[
            "score"
        ]
    return grid


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("lambda_ac", (0.102538, 1.265131, 1.162593, 1)),
        ("norm_obs", (0.077471, 1.255892, 1.178422, 1)),
        ("symlog_obs", (0.108867, 1.263006, 1.154139, 2)),
        ("advn_norm_mean", (0.138357, 1.357219, 1.218862, 1)),
        ("advn_norm_ema", (0.256525, 1.316243, 1.059718, 3)),
        ("advn_norm_max_ema", (0.144350, 1.290805, 1.146455, 2)),
        ("symlog_critic_targets", (0.118567, 1.110299, 0.991732, 2)),
    ],
)
def test_published_values_are_reproduced(algorithm, expected):
    grid = performance(algorithm)
    assert grid.shape == (5, 5, 5, 5, 5)
    found = sensitivity(grid)
    np.testing.assert_allclose(found[:3], expected[:3], atol=1e-6)
    assert found.effective_dimension == expected[3]
    assert found.diverged == pytest.approx(np.isnan(grid).mean()) and 131 / 625 <= found.considered <= 216 / 625


def test_no_tuning_is_needed_where_one_setting_is_best_everywhere():
    found = sensitivity(np.tile(np.arange(6.0).reshape(2, 3), (4, 1, 1)))
    assert found.sensitivity == 0 and found.default_setting == (1, 2) and found.effective_dimension == 0


def test_divergence_is_neither_a_bad_score_nor_the_default():
    grid = np.array([[1.0, 5.0], [1.0, np.nan]])
    found = sensitivity(grid)
    assert found.default_setting == (0,) and found.tuned == 3.0 and found.diverged == 0.25 and found.considered == 0.5


def test_percentiles_are_of_the_pool():
    pool = np.stack([np.linspace(0, 100, 101), np.linspace(-50, 50, 101)])
    np.testing.assert_allclose(normalise([[5.0], [45.0]], pool), [[0.0], [100 / 90 * 0.9]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sensitivity([1.0]), "got 1 axes"),
        (lambda: sensitivity([[np.nan, np.nan], [1.0, 1.0]]), "Every setting diverged in one"),
        (lambda: sensitivity([[np.nan, 1.0], [1.0, np.nan]]), "diverged somewhere"),
        (lambda: normalise([[1.0, 1.0]]), "do not vary"),
    ],
)
def test_what_allows_no_answer_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
