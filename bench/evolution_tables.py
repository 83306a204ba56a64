"""The section on evolution at scale of the page of benchmarks; `tables.py` writes it."""

import json
import math
from pathlib import Path

import numpy as np
from data_needed import ES_STEPS
from scipy.stats import fisher_exact

from workhorse.statistics.survival import first_reach

RESULTS = Path(__file__).with_name("results")


def evolution_section() -> list[str]:
    """Lines of the section; what was not measured is printed with the command that would."""
    parts = (classic(), learning_rows(), low_rank(), ask_and_tell(), nodes_of_studies(), claims())
    return [line for part in parts for line in (*part, "")][:-1]


def read(name: str) -> dict | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def origin(found: dict) -> str:
    machine = found["machine"]
    return f"`{found['made_by']}`, {found['date']}, {machine['cores']} cores of {machine['cpu']}, beside other work."


def not_measured(what: str, command: str) -> list[str]:
    return [f"{what}: **not measured**; `{command}`."]


def classic() -> list[str]:
    found = read("evolution-classic")
    command = "python bench/evolution_classic.py"
    if found is None:
        return not_measured("Every strategy on CartPole", command)
    lines = [
        "**Every strategy on CartPole-v1**, 100,000 steps with its recipe or its defaults, ten seeds from 1000 that "
        "chose no setting, then 100 episodes; from 2000 where settings were chosen again, on seeds 100 to 159, because "
        "the first had failed (ga 9, guided-es 9, hill-climb 8, nsr-es 3 of 10), and from 3000 where those failed too "
        "(ga 7, guided-es 9, hill-climb 3), then with `shared_starts` for ga and hill-climb: of the 60 seeds of choice "
        "59 reached 500 with each of the three. guided-es had 8 of 10 then, and was chosen a fourth time, on seeds 100 "
        "to 299, of which 197 reached 500; from 4000. To reach: 500 in 10 of 10. Ten of ten may be luck: the last but "
        "one column is of 100 more seeds, from 5000, by `python bench/evolution_classic.py --many`. "
        f"{origin(found)}",
        "",
        "| algorithm | first seed | mean return [95 %] | least | seeds with 500 | of 100 more | |",
        "|---|---|---|---|---|---|---|",
    ]
    many = (read("evolution-classic-many") or {"rows": {}})["rows"]
    for name, row in found["rows"].items():
        mean, low, high = row["mean"]
        more = f"{many[name]['solved']}" if name in many else "not measured"
        count = len(row["returns"])
        verdict = "reached" if row["solved"] == count else "**missed**"
        mean_cell, least = f"{mean:.1f} [{low:.1f}, {high:.1f}]", f"{min(row['returns']):.1f}"
        fresh = f"{row['solved']} of {count}"
        lines.append(f"| {name} | {row['first_seed']} | {mean_cell} | {least} | {fresh} | {more} | {verdict} |")
    left = "; ".join(f"`{name}`: {why}" for name, why in found["left_out"].items())
    return [*lines, "", f"Left out: {left}."]


def learning_rows() -> list[str]:
    lines = []
    for suite, what in (
        (
            "walker2d-pgpe",
            "**PGPE on Walker2d-v5**, its recipe, 20M steps (to reach within 40M, 4 seeds: a mean of 3,000, and two "
            "seeds over 3,830)",
        ),
        ("humanoid-pgpe", "Humanoid-v5 at 6,000 in less than 8 core-hours, one seed to its end"),
    ):
        found = read(f"learning-{suite}")
        if found is None:
            lines += [*not_measured(what, f"python bench/learning.py {suite}"), ""]
            continue
        low, high = found["interval"]
        seeds = ", ".join(f"{run['mean']:,.0f} (seed {run['seed']})" for run in found["runs"])
        lines += [
            f"{what}: mean {found['mean_over_seeds']:,.0f} [{low:,.0f}, {high:,.0f}] over {len(found['runs'])} seeds, "
            f"final returns {seeds}. {origin(found)}",
            "",
        ]
    return [*lines, *humanoid(), *lag()]


def humanoid() -> list[str]:
    """Settings tried on Humanoid-v5, and the pairs that an estimate of the direction needs there."""
    found, heard = read("humanoid-arms"), read("search-signal")
    if found is None or heard is None:
        return [*not_measured("What was tried on Humanoid-v5", "python bench/humanoid_arms.py"), ""]
    far = max(found["rows"], key=lambda row: row["steps"])
    lines = [
        f"**Not reached so far.** The longest run, {far['arm']}, seed {far['seed']}, was stopped after "
        f"{far['steps'] / 1e6:.1f}M of its 93M steps with episodes of {far['length']:.0f} steps; it can go on. Mean "
        "returns of the population with other settings, one seed each, which says where to look and not what is "
        f"better; each was stopped where nothing more is shown. {origin(found)}",
        "",
        f"| settings beside the recipe's | seed | {' | '.join(f'{mark / 1e6:g}M' for mark in found['marks'])} |",
        f"|---|---|{'---|' * len(found['marks'])}",
    ]
    for row in found["rows"]:
        cells = ["" if value is None else f"{value:,.0f}" for value in row["returns"]]
        lines.append(f"| {row['arm']} | {row['seed']} | {' | '.join(cells)} |")
    lines += [
        "",
        "The bonus for being alive, kept, is a quick start and a trap: both feet stay where they are, and the body "
        "falls as slowly as it can. Without it the walker takes four strides in the longest run, and falls"
        f"{forward_speed(heard)}.",
        "",
        "Why it is slow: pairs that an estimate of the direction would need until two such estimates have a cosine of "
        "0.5, around policies of runs as above; *noise* is a multiple of the run's own. "
        f"{origin(heard)}",
        "",
        "| run | parameters | trained, steps | noise | mean return | pairs played | needed [95 %] | as env. steps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = {"few-quick": "45 observations, 15,000 steps, speed 0.1"}
    names |= {"few-small-bonus": "45 observations, 15,000 steps, bonus kept", "quick": "15,000 steps, speed 0.1"}
    for row in heard["rows"]:
        low, high = (f"{bound:,.0f}" if math.isfinite(bound) else "no bound" for bound in row["interval"])
        found_pairs, steps = f"{row['pairs_needed']:,.0f} [{low}, {high}]", 2 * row["pairs_needed"] * row["length"]
        if not math.isfinite(row["pairs_needed"]):
            found_pairs = f"above {low}" if math.isfinite(row["interval"][0]) else f"nothing heard of {row['pairs']:,}"
        lines.append(
            f"| {row['task']}, {names.get(row['run'], 'the recipe')} | {row['parameters']:,} | "
            f"{row['trained_steps'] / 1e6:.1f}M | {row['scale']:g} | {row['return']:,.0f} | {row['pairs']:,} | "
            f"{found_pairs} | {f'{steps / 1e6:,.1f}M' if math.isfinite(steps) else ''} |"
        )
    return [*lines, ""]


def forward_speed(heard: dict) -> str:
    """Speed of the longest run's population, from its rewards: 5 for being alive, 1.25 for each m/s, less costs."""
    found = [row for row in heard["rows"] if row["run"] == "humanoid-pgpe-s0"]
    if not found:
        return ""
    return f", at some {(found[0]['return'] / found[0]['length'] - 5) / 1.25:.1f} m/s"


REACHED = 2_386


def lag() -> list[str]:
    """Steps to 2,386 with a lag and without, seeds paired; a seed that never got there counts with all its steps."""
    what = "Lag 1 against lag 0 on HalfCheetah-v5, 10 seeds (to reach: at most 10 % more steps)"
    late, prompt = read("learning-half-cheetah-lag-1"), read("learning-half-cheetah-default")
    if late is None or prompt is None:
        return not_measured(what, "python bench/learning.py half-cheetah-lag-1 --seeds 10 --first-seed 20440")
    by_seed = {run["seed"]: run for run in prompt["runs"]}
    pairs = [(by_seed[run["seed"]], run) for run in late["runs"]]
    found = np.array([[reached_at(run["curve"]) for run in pair] for pair in pairs])
    steps, never = found[:, :, 0], (found[:, :, 1] == 0).sum(0)
    drawn = steps[np.random.default_rng(0).integers(len(steps), size=(10_000, len(steps)))].mean(1)
    low, high = np.percentile(drawn[:, 1] / drawn[:, 0], (2.5, 97.5))
    before, after = steps.mean(0)
    verdict = "reached" if after / before <= 1.1 else "**missed**"
    returns = [np.mean([run["mean"] for run in runs]) for runs in zip(*pairs, strict=True)]
    return [
        f"**Lag 1 against lag 0** on HalfCheetah-v5 with its default recipe, {len(pairs)} paired seeds from "
        f"{pairs[0][1]['seed']}: mean steps until an evaluation (one every 200,000 steps) is at {REACHED:,}, "
        f"{before:,.0f} without and {after:,.0f} with a lag, {after / before:.2f} times [{low:.2f}, {high:.2f}] "
        f"(bootstrap over seeds; {never[0]} and {never[1]} seeds never got there and count with all their steps). "
        f"To reach: at most 1.1 times: {verdict}. Final returns: {returns[0]:,.0f} and {returns[1]:,.0f}. "
        + origin(late)
    ]


def reached_at(curve: list[list[float]]) -> tuple[float, bool]:
    steps, returns = np.transpose(curve)
    return first_reach(steps, returns, REACHED)


def low_rank() -> list[str]:
    found = read("low_rank") or {}
    lines = ["**Rank 1 against full noise**, `openai-es`; one thread, rounds in turn, medians.", ""]
    for part in (low_rank_update, low_rank_acting, low_rank_throughput, low_rank_learning):
        lines += [*part(found), ""]
    return lines[:-1]


def low_rank_update(found: dict) -> list[str]:
    if "update" not in found:
        return not_measured("The update", "python bench/low_rank.py --case update")
    goals = {"HalfCheetah 17-64-64-6": 10, "Humanoid 348-64-64-17": 25}
    lines = [
        "The update, milliseconds: the sums over perturbations alone, and with what both share, which is "
        f"ranks, Adam and reports. {origin(found['update'])} An earlier run, with more work beside it, had "
        "7.2x [6.0, 8.6] and 21.5x [19.4, 23.8] for the whole update of HalfCheetah and of Humanoid at 256 pairs.",
        "",
        "| network | pairs | part | full | rank 1 | faster [95 %] | to reach |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["update"]["found"]:
        full, low = (1e3 * np.median(row[side]) for side in ("full_s", "low_s"))
        goal = goals.get(row["network"])
        verdict = "" if goal is None else f"{goal}x: " + ("reached" if row["faster"] >= goal else "**missed**")
        least, most = row["interval"]
        faster = f"{row['faster']:.1f}x [{least:.1f}, {most:.1f}]"
        lines.append(
            f"| {row['network']} | {row['pairs']:,} | {row['part']} | {full:.2f} | {low:.2f} | {faster} | {verdict} |"
        )
    return lines


def low_rank_acting(found: dict) -> list[str]:
    if "acting" not in found:
        return not_measured("Acting", "python bench/low_rank.py --case acting")
    lines = [
        "Acting, microseconds for a member and step; *bare*: one network for all members, without perturbations. "
        + origin(found["acting"]),
        "",
        "| network | members | full | rank 1 | bare | faster [95 %] |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["acting"]["found"]:
        times = " | ".join(f"{1e6 * np.median(row[side]):.2f}" for side in ("full_s", "rank_1_s", "shared_s"))
        least, most = row["interval"]
        faster = f"{row['faster']:.1f}x [{least:.1f}, {most:.1f}]"
        lines.append(f"| {row['network']} | {row['members']} | {times} | {faster} |")
    return lines


def low_rank_throughput(found: dict) -> list[str]:
    if "throughput" not in found:
        return not_measured("Training / raw with 256-256", "python bench/low_rank.py --case throughput")
    lines = [
        f"Training / raw `mujoco.batch`, steps per second. {origin(found['throughput'])}",
        "",
        "| task | policy | training | raw | ratio, median [range] | to reach |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["throughput"]["found"]:
        verdict = (
            "" if "rank" not in row["policy"] else "0.85: " + ("reached" if row["ratio"] >= 0.85 else "**missed**")
        )
        speeds, (least, most) = f"{row['training_per_s']:,.0f} | {row['raw_per_s']:,.0f}", row["ratio_range"]
        ratio = f"{row['ratio']:.2f} [{least:.2f}, {most:.2f}]"
        lines.append(f"| {row['task']} | {row['policy']} | {speeds} | {ratio} | {verdict} |")
    return lines


def low_rank_learning(found: dict) -> list[str]:
    if "learning" not in found:
        return not_measured("Return after equal steps", "python bench/low_rank.py --case learning")
    result = found["learning"]["found"]
    low, high = result["interval"]
    means = {suite: np.mean([run["mean"] for run in runs]) for suite, runs in result["runs"].items()}
    count = len(result["runs"]["low-rank-1"])
    return [
        f"HalfCheetah-v5 with 64-64, {result['env_steps'] / 1e6:g}M steps, {count} seeds in pairs: rank 1 "
        f"{means['low-rank-1']:,.0f}, full {means['low-rank-full']:,.0f}, difference {result['difference']:,.0f} "
        f"[{low:,.0f}, {high:,.0f}] (to reach: 0 inside, or better: {'reached' if high >= 0 else '**missed**'}). "
        + origin(found["learning"])
    ]


def ask_and_tell() -> list[str]:
    found = read("ask_tell")
    if found is None:
        return not_measured("Ask and tell beside evosax and EvoTorch", "python bench/ask_tell.py")
    others = ", ".join(f"{name} {version}" for name, version in found["others"].items())
    lines = [
        f"**Ask and tell beside other libraries** ({others}), milliseconds a generation, each library in its quickest "
        f"documented form, rounds in turn. To reach: no longer than the faster of them. {origin(found)}",
        "",
        "| problem | algorithm | population | workhorse | evosax | EvoTorch | over the faster [least, most] | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        times = (row["median"].get(name) for name in ("workhorse", "evosax", "evotorch"))
        cells = ["has none" if one is None else f"{one[0]:.2f}" for one in times]
        middle, low, high = row["ratio"]
        lines.append(
            f"| {row['task']} | {row['algorithm']} | {row['population']} | {' | '.join(cells)} | "
            f"{middle:.2f} [{low:.2f}, {high:.2f}] | {'reached' if middle <= 1 else '**missed**'} |"
        )
    return lines


def nodes_of_studies() -> list[str]:
    found = read("study-nodes")
    if found is None:
        return not_measured("A study on two nodes", "python bench/studies.py --case cluster")
    equal = {True: "equal", False: "**not equal**"}
    return [
        "**A study of 8 CartPole runs as Ray tasks on two nodes in namespaces, one of them killed.** To reach: all 8 "
        f"finish, the table equals the local study's. {found['runs_finished']} finished, the table "
        f"{equal[found['table_equal']]}, digests {equal[found['digests_equal']]}, {found['jobs_lost']} run given "
        "again. " + origin(found)
    ]


def claims() -> list[str]:
    lines = ["**Claims of Salimans et al. 2017, tested again.**", ""]
    return [*lines, *data_needed(), "", *duplicates(), "", *subspace(), "", *widths(), "", *tricks()]


PUBLISHED = {
    "HalfCheetah-v5": (0.15, 0.49, 0.42, 0.58),
    "Hopper-v5": (0.53, 3.64, 6.05, 6.94),
    "InvertedDoublePendulum-v5": (0.46, 0.48, 0.49, 1.23),
    "Swimmer-v5": (0.56, 0.47, 0.53, 0.30),
    "Walker2d-v5": (0.41, 5.69, 8.02, 7.88),
}
"""Ratios of table 1 of Salimans et al. 2017, on version 1 of the tasks, of what their TRPO gained in 5M steps."""


def data_needed() -> list[str]:
    found = read("data-needed")
    if found is None:
        return not_measured('"3 to 10 times the data of TRPO": open', "python bench/data_needed.py")
    lines = [
        "*3 to 10 times the data of TRPO.* Ratio of median steps, `openai-es` over `trpo`, both with 64-64, until an "
        "evaluation is at a share of what TRPO gains in 1M steps at its best, with the seeds that got there, of each, "
        "and an interval by drawing seeds again; a seed that did not get there counts as never, and a ratio is "
        "*censored* where half of the seeds are such. TRPO is evaluated every 50,000 steps, so a ratio may be larger "
        f"than it says. The claim fails where the interval is outside 3 to 10. {origin(found)}",
        "",
        "| task | 25 % | 50 % | 75 % | 100 % |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        pairs = [[np.array(cell["steps"][name]) for name in ("openai-es", "trpo")] for cell in row["cells"]]
        lines.append(f"| {row['task']} | {' | '.join(ratio_cell(ours, theirs) for ours, theirs in pairs)} |")
        lines.append(f"| published, version 1 | {' | '.join(f'{ratio:.2f}' for ratio in PUBLISHED[row['task']])} |")
    missing = [task for task in ES_STEPS if task not in {row["task"] for row in found["rows"]}]
    if missing:
        lines += ["", f"{', '.join(missing)}: **not measured**; `python bench/data_needed.py {' '.join(missing)}`."]
    return lines


def ratio_cell(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Ratio of medians with its interval, the seeds that got there, and what becomes of "3 to 10 times"."""
    count = f"{np.isfinite(ours).sum()} and {np.isfinite(theirs).sum()} of {len(ours)}"
    if not np.isfinite(np.median(theirs)):
        return f"TRPO itself is censored ({count}): open"
    draws = np.random.default_rng(0).integers(len(ours), size=(2, 10_000, len(ours)))
    drawn = np.median(ours[draws[0]], axis=1), np.median(theirs[draws[1]], axis=1)
    with np.errstate(invalid="ignore"):
        ratios = drawn[0] / drawn[1]  # NaN where neither got there: it may be anything
    low = np.quantile(np.nan_to_num(ratios, nan=0.0, posinf=np.inf), 0.025, method="nearest")
    high = np.quantile(np.nan_to_num(ratios, nan=np.inf, posinf=np.inf), 0.975, method="nearest")
    verdict = "holds" if low >= 3 and high <= 10 else "open"
    if low > 10 or high < 3:
        verdict = f"fails: {'more' if low > 10 else 'less'}"
    ratio = float(np.median(ours) / np.median(theirs))
    bounds = [f"{bound:.1f}" if np.isfinite(bound) else "no bound" for bound in (low, high)]
    return f"{f'{ratio:.1f}' if np.isfinite(ratio) else 'censored'} [{', '.join(bounds)}] ({count}): {verdict}"


def duplicates() -> list[str]:
    found = read("intrinsic-duplicates")
    if found is None:
        return not_measured("Duplicated inputs: open", "python bench/intrinsic.py --case duplicates")
    lines = [
        "*Duplicated inputs change nothing.* Every input given 8 times to `ars` with a linear policy, noise and step "
        "divided by √8: equal in law by algebra; median steps to the threshold over seeds, and a permutation test. "
        + origin(found),
        "",
        "| task | once | 8 times | p |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        cells = [steps_cell(row["steps"][copies]) for copies in ("1", "8")]
        lines.append(f"| {row['task']} | {cells[0]} | {cells[1]} | {row['p']:.2f} |")
    return lines


def steps_cell(steps: list[float]) -> str:
    there = [value for value in steps if math.isfinite(value)]
    middle = f"{np.median(there):,.0f}" if there else "never"
    return middle if len(there) == len(steps) else f"{middle} ({len(there)} of {len(steps)} seeds)"


def subspace() -> list[str]:
    found = read("intrinsic-subspace")
    if found is None:
        return not_measured("Dimensions that a task needs: open", "python bench/intrinsic.py --case subspace")
    lines = [
        "*Few random dimensions suffice.* d90: least number of random directions whose best score is 90 % of that of "
        f"all parameters, by `pgpe`, means over seeds. {origin(found)}",
        "",
        "| task | hidden units | parameters | d90 |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        hidden = "-".join(map(str, row["hidden"]))
        lines.append(f"| {row['task']} | {hidden} | {row['parameters']:,} | {row['d90'] or 'above 50'} |")
    there = {(row["task"], tuple(row["hidden"])) for row in found["rows"]}
    for task in dict.fromkeys(row["task"] for row in found["rows"]):
        for units in (20, 200):
            if (task, (units, units)) not in there:
                command = f"`python bench/intrinsic.py --case subspace --tasks {task} --hidden {units}`"
                lines += ["", f"{task} with {units}-{units}: **not measured**; {command}."]
    return lines


def widths() -> list[str]:
    found = read("intrinsic-widths")
    if found is None:
        return not_measured("Steps by width: open", "python bench/intrinsic.py --case widths")
    lines = [
        "*The speed does not depend on the number of parameters.* One hidden layer of 16 to 1,024 units, by `pgpe`; "
        "slope of log steps on log parameters, over seeds that solved all widths; 0 is the claim. It fails as well "
        f"where fewer seeds solve the widest than the narrowest (Fisher's exact test, 5 %). {origin(found)}",
        "",
        "| task | parameters | median steps, from narrow to wide | slope [95 %] | the claim |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        sizes = f"{row['cells'][0]['parameters']:,} to {row['cells'][-1]['parameters']:,}"
        steps = ", ".join(steps_cell(cell["steps"]) for cell in row["cells"])
        slope, verdict = "too few seeds", "open"
        if row["slope"]:
            middle, low, high, count = row["slope"]
            slope = f"{middle:.2f} [{low:.2f}, {high:.2f}], {count} seeds"
            verdict = "holds" if low <= 0 <= high else "fails: faster" if high < 0 else "fails: slower"
        solved = [[math.isfinite(value) for value in row["cells"][end]["steps"]] for end in (0, -1)]
        counts = [[sum(seeds), len(seeds) - sum(seeds)] for seeds in solved]
        if counts[0][0] > counts[1][0] and fisher_exact(counts).pvalue < 0.05:  # type: ignore[attr-defined]
            verdict = "fails: the widest does not get there"
        lines.append(f"| {row['task']} | {sizes} | {steps} | {slope} | {verdict} |")
    return lines


def tricks() -> list[str]:
    found = read("intrinsic-tricks")
    if found is None:
        return not_measured("What helps backpropagation: open", "python bench/intrinsic.py --case tricks")
    lines = [
        "*Every trick that helps backpropagation helps.* Factor on the steps to the threshold, seeds paired, two "
        f"hidden layers of 64, by `pgpe`; below 1 it helps. {origin(found)}",
        "",
        "| task | change | factor [95 %] | seeds solved without, with | |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        solved = [sum(map(math.isfinite, row[name])) for name in ("plain", "steps")]
        factor, verdict = "too few pairs", "open"
        if row["factor"]:
            middle, low, high = row["factor"]
            factor = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            verdict = "helps" if high < 1 else "harms" if low > 1 else "cannot be told"
        lines.append(f"| {row['task']} | {row['change']} | {factor} | {solved[0]}, {solved[1]} | {verdict} |")
    return lines
