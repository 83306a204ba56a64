"""Pairs that a direction of search needs: `python bench/search_signal.py RUN ... [--pairs 768] [--scale 1 2]`.

Around the policy of a run with a linear policy, N mirrored pairs play an episode each, both of a pair from one start.
With u the centred ranks of fitness and e the noise of a pair, g_i = (u+ - u-) e_i / 2 is what a pair says. The mean of
g_i . g_j over pairs i != j estimates the squared length U of what all say together without bias, and the mean of
|g_i|^2 is S, nearly all noise. Two independent estimates of N pairs each have a cosine of U / (U + (S - U) / N) in
expectation, which is 0.5 at N = (S - U) / U pairs. The interval is a jackknife's over 12 groups of pairs.

The noise is that of the run at its end, its mean over parameters, times `--scale`. The results go to
bench/results/search-signal.json, where rows of other runs stay.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from learning import RESULTS
from record import head
from scipy import stats

from workhorse.core.spec import Box
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv
from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics
from workhorse.runs.policy_files import policy_folder, read_policy

SLOTS, GROUPS, SEED = 256, 12, 7


class Linear(NamedTuple):
    """Policies u = W x + b for observations (o - mean) / scale, clipped; leading axis P of W and b."""

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    clip: float

    def act(self, members: np.ndarray, obs: np.ndarray) -> np.ndarray:
        seen = np.clip((obs - self.mean) / self.scale, -self.clip, self.clip)
        return np.einsum("pij,pj->pi", self.weight[members], seen) + self.bias[members]

    def moved(self, change: np.ndarray) -> "Linear":
        """Return the policies at `change`, (P, n), from the one policy that this is."""
        size = self.weight[0].size
        weights = self.weight + change[:, :size].reshape(-1, *self.weight[0].shape)
        return self._replace(weight=weights, bias=self.bias + change[:, size:])


def linear_policy(run: Path) -> Linear:
    normalise, dense = read_policy(policy_folder(run)).layers[:2]
    return Linear(
        *(np.asarray(value, np.float64)[None] for value in (dense.weight, dense.bias)),  # type: ignore[union-attr]
        *(np.asarray(value, np.float64) for value in (normalise.mean, normalise.scale)),  # type: ignore[union-attr]
        normalise.clip,  # type: ignore[union-attr]
    )


def play(env: HostEnv, policies: Linear, keys: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return and length of an episode of each policy."""
    assert isinstance(env.spec.action, Box)
    low, high = env.spec.action.low, env.spec.action.high
    returns, lengths = np.zeros(count), np.zeros(count, int)
    for first in range(0, count, SLOTS):
        members = np.arange(first, min(first + SLOTS, count))
        slots = np.arange(len(members))
        obs = env.reset(keys[members], slots)
        while len(slots):
            acting = members[slots]
            step = env.step(np.clip(policies.act(acting, obs), low, high), slots)
            returns[acting] += step.reward
            lengths[acting] += 1
            going = ~(step.terminated | step.truncated)
            slots, obs = slots[going], step.next_obs[going]
    return returns, lengths


def pairs_needed(found: np.ndarray) -> float:
    """Pairs for a cosine of 0.5, from what each pair says, in groups (K, N / K, n); inf where nothing is heard."""
    groups, per_group = len(found), len(found[0])
    means = found.mean(axis=1)
    gram = means @ means.T
    heard = (gram.sum() - np.trace(gram)) / (groups * (groups - 1))
    noise = np.square(found).sum() / (groups * per_group)
    return (noise - heard) / heard if heard > 0 else np.inf


def row_of(run: Path, pairs: int, scale: float) -> dict:
    manifest = RunFolder.open(run).manifest()
    env = environments.make(manifest.task, SLOTS, 1, **manifest.task_options)
    assert isinstance(env, HostEnv)
    policy, metrics = linear_policy(run), read_metrics(run)
    size = policy.weight.size + policy.bias.size
    noise_std = float(metrics["noise_std"][-1]) * scale
    noise = np.random.default_rng(SEED).standard_normal((pairs, size))
    keys = np.stack([np.full(2 * pairs, SEED), np.tile(np.arange(pairs), 2)], axis=1).astype(np.uint64)
    members = policy.moved(noise_std * np.concatenate([noise, -noise]))
    returns, lengths = play(env, members, keys, 2 * pairs)
    ranks = stats.rankdata(returns - (manifest.settings["alive_bonus"] or 0.0) * lengths) / (2 * pairs) - 0.5
    said = ((ranks[:pairs] - ranks[pairs:])[:, None] * noise / 2).reshape(GROUPS, -1, size)
    without = np.array([1 / pairs_needed(np.delete(said, group, axis=0)) for group in range(GROUPS)])
    spread = np.sqrt((GROUPS - 1) / GROUPS * np.square(without - without.mean()).sum())
    heard, wide = 1 / pairs_needed(said), float(stats.t.ppf(0.975, GROUPS - 1) * spread)
    limits = [1 / bound if bound > 0 else np.inf for bound in (heard + wide, heard - wide)]
    env.close()
    return {
        "run": run.name,
        "task": manifest.task,
        "observations": len(policy.mean),
        "trained_steps": int(metrics["env_steps"][-1]),
        "scale": scale,
        "noise_std": noise_std,
        "parameters": size,
        "return": float(returns.mean()),
        "length": float(lengths.mean()),
        "pairs": pairs,
        "pairs_needed": float(pairs_needed(said)),
        "interval": limits,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--pairs", type=int, default=768)
    parser.add_argument("--scale", nargs="+", type=float, default=[1.0])
    options = parser.parse_args()
    target = RESULTS / "search-signal.json"
    rows = {(r["run"], r["scale"]): r for r in json.loads(target.read_text())["rows"]} if target.exists() else {}
    for run in options.runs:
        for scale in options.scale:
            row = row_of(run, options.pairs // GROUPS * GROUPS, scale)
            rows[row["run"], scale] = row
            print(row, flush=True)
            command = "python bench/search_signal.py RUN ... --pairs N --scale S"
            target.write_text(json.dumps({**head(command), "rows": list(rows.values())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
