"""Scale beyond the machine at hand, by simulation: `python bench/simulation.py`.

A sweep from 1 to 10,000 cores for both exchanges at three sizes of policy, and the published set-up (Salimans et al.
2017: Humanoid, 10,000 episodes an iteration, 18 cores in 657 min and 1,440 cores in 10 min, so 82 % efficiency), with
a worker a core and with a worker a node, without and with a lag.
Nothing here was run on a cluster: chunk times, the update's rate and a call's latency are measured on one machine, the
rest is assumed, and all of it is written into the result.
"""

import argparse
import itertools
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib
from event_model import (
    CORES,
    Cluster,
    Network,
    Prediction,
    Update,
    Workload,
    lockstep_seconds,
    predict,
    sweep,
)
from node_model import Costs, Nodes, iteration_seconds, useful_seconds
from record import head

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from workhorse.math.noise import BLOCK_SIZE
from workhorse.training.lanes import lane_threads

HERE = Path(__file__).parent
INK, LINE, OTHER, WARM = "#1f2933", "#00796b", "#7b5ea7", "#c2571a"
PUBLISHED = {"cores": 1_440, "efficiency": 657 * 18 / (10 * 1_440), "beside_cores": 18}
OBSERVATION_SIZE, NODE = 376, 18
MEASURED = {  # one core of an AMD EPYC shared with others: Humanoid-v5 chunks of 1 to 32 slots, least squares
    "mlp-64-64": {"num_params": 29_393, "slot_step_s": 0.30e-3, "call_s": 0.12e-3, "begin_s": 0.2e-3},
    "mlp-256-256": {"num_params": 166_673, "slot_step_s": 0.43e-3, "call_s": 0.22e-3, "begin_s": 1.0e-3},
}
DEFAULTS = {"rebuild_elements_per_second": 1.6e8, "call_latency_s": 500e-6, "message_cpu_s": 100e-6}
SAID = {
    "rebuild_elements_per_second": "measured with noise.weighted_sums on one core of an AMD EPYC",
    "call_latency_s": "assumed, not measured",
    "message_cpu_s": "assumed, not measured",
}
PHASES = {
    "early": "log-normal, mean 100, variation 0.6",
    "middle": "log-normal, mean 400, variation 0.6, cut at 1,000",
    "late": "7 of 10 last 1,000 steps, the others uniform from 50 on",
}
BUILT, FINE, PARAMETERS = (
    "a worker a core, scalars",
    "a worker a core, scalars, shared update, quick messages through a tree (not built)",
    "a worker a core, parameters",
)
SIM_S = 0.26e-3
"""A step of Humanoid-v5 on one core, from the raw speed of bench/throughput.py; the rest of `slot_step_s` is acting."""
NOISE = ("full noise", "low rank")
DRAWS = {"mlp-64-64": 766, "mlp-256-256": 1_918}
"""Numbers drawn for a perturbation of rank 1, at 348 observations and 17 actions."""
PRODUCT_FLOPS = 2e10
"""Assumed speed of one core in the product of a low-rank update."""
PRICES = {"0.04 USD a core-hour (the built-in price, assumed)": 0.04, "0.05 USD (12 USD for 1,440 cores, 10 min)": 0.05}


def episode_lengths(phase: str, size: int = 4_000) -> np.ndarray:
    """Steps of Humanoid's episodes as training goes on; assumed shapes, at most 1,000 steps."""
    rng = np.random.default_rng(1)
    if phase == "late":
        return np.where(rng.random(size) < 0.7, 1_000, rng.uniform(50, 1_000, size)).astype(int)
    mean, spread = {"early": 100, "middle": 400}[phase], math.sqrt(math.log1p(0.6**2))
    lengths = mean * np.exp(spread * rng.standard_normal(size) - spread**2 / 2)
    return np.clip(lengths, 20, 1_000).astype(int)


def humanoid(policy: str, phase: str, chunk: int, members: int = 10_000, slower: float = 1.0) -> Workload:
    cost = MEASURED[policy]
    seconds = lockstep_seconds(
        episode_lengths(phase),
        chunk,
        slower * cost["slot_step_s"],
        slower * cost["call_s"],
        slower * cost["begin_s"],
        np.random.default_rng(2),
    )
    return Workload(members, chunk, int(cost["num_params"]), OBSERVATION_SIZE, seconds)


def variants(inputs: dict) -> dict:
    """(exchange, network, update) by name: what is built today, and what it would take."""
    network = Network(latency_s=inputs["call_latency_s"], coordinator_cpu_s_per_message=inputs["message_cpu_s"])
    update = Update(1 / inputs["rebuild_elements_per_second"])
    shared = replace(update, block_size=BLOCK_SIZE)
    quick = replace(network, coordinator_cpu_s_per_message=min(20e-6, inputs["message_cpu_s"]), fan_out=8)
    return {
        BUILT: ("scalars", network, update),
        FINE: ("scalars", quick, shared),
        PARAMETERS: ("parameters", network, update),
    }


def beside_18(workload: Workload, variant: tuple, iterations: int) -> dict:
    """The published comparison: 1,440 cores beside 18 of the same make, chunk and exchange."""
    exchange, network, update = variant
    few, many = (
        predict(workload, network, update, Cluster(cores, NODE), exchange, np.random.default_rng(0), iterations)
        for cores in (PUBLISHED["beside_cores"], PUBLISHED["cores"])
    )
    return {
        "members": workload.num_members,
        "episodes_per_chunk": workload.episodes_per_chunk,
        "iteration_s_18": few.iteration_s,
        "iteration_s_1440": many.iteration_s,
        "efficiency_beside_18": many.efficiency_beside(few),
        "limit": many.limit,
        "where_1440": asdict(many.where),
        "bytes_to_a_worker": many.bytes_to_a_worker,
    }


def update_core_seconds(inputs: dict, policy: str, noise: str) -> float:
    """Core-seconds of an update: as given, else from the components drawn and, for low rank, one product."""
    pairs, size, rate = 5_000, int(MEASURED[policy]["num_params"]), inputs["rebuild_elements_per_second"]
    given = inputs["low_rank_update_s"].get(policy)
    if noise == "low rank" and given is not None:
        return given
    return pairs * size / rate if noise == "full noise" else pairs * (DRAWS[policy] / rate + 2 * size / PRODUCT_FLOPS)


def with_nodes(inputs: dict, iterations: int) -> list[dict]:
    """The published set-up with workers of several cores: policies, updates, lags, phases, sizes of chunk."""
    cases = [(NODE, noise, lag) for noise in NOISE for lag in (0, 1)] + [
        (cores, "low rank", 1) for cores in (6, 3, 2, 1)
    ]
    rows = []
    for policy, (cores, noise, lag), phase in itertools.product(MEASURED, cases, PHASES):
        rng, shapes = np.random.default_rng(3), episode_lengths(phase)
        episodes = [rng.choice(shapes, 10_000) for _ in range(iterations + 2)]
        update_s = update_core_seconds(inputs, policy, noise)
        useful = useful_seconds(np.concatenate(episodes), node_costs(policy)) / len(episodes) + update_s
        for slots in (4, 8, 16, 32, 64):
            few, many = (
                iteration_seconds(
                    episodes, slots, node_costs(policy), nodes_of(inputs, all_cores, cores, update_s), lag
                )
                for all_cores in (PUBLISHED["beside_cores"], PUBLISHED["cores"])
            )
            beside = few / (many * PUBLISHED["cores"] / PUBLISHED["beside_cores"])
            row = {
                "policy": policy,
                "noise": noise,
                "lag": lag,
                "phase": phase,
                "cores_per_worker": cores,
                "episodes_per_chunk": slots,
                "iteration_s_18": few,
                "iteration_s_1440": many,
                "efficiency_beside_18": beside,
                "useful_share_of_cores": useful / (many * PUBLISHED["cores"]),
                "update_core_s": update_s,
                "money": {said: 657 / 60 * 18 / beside * price for said, price in PRICES.items()},
            }
            rows.append(row)
    return rows


def node_costs(policy: str) -> Costs:
    cost = MEASURED[policy]
    return Costs(SIM_S, cost["slot_step_s"] - SIM_S, cost["call_s"], cost["begin_s"])


def nodes_of(inputs: dict, all_cores: int, cores: int, update_s: float) -> Nodes:
    """Workers of a size on so many cores; the coordinator's own time is measured with 80, and grows with them."""
    count = all_cores // cores
    own_s = inputs["coordination_s"] * max(1.0, count / 80)
    return Nodes(count, cores, inputs["message_cpu_s"], inputs["call_latency_s"], update_s, own_s)


def published(inputs: dict, iterations: int) -> list[dict]:
    rows = []
    for name, variant in variants(inputs).items():
        for policy in MEASURED:
            for phase in PHASES:
                for chunk in (1, 2, 4, 8):
                    row = beside_18(humanoid(policy, phase, chunk), variant, iterations)
                    rows.append({"variant": name, "policy": policy, "phase": phase} | row)
    return rows


def check(inputs: dict) -> dict | None:
    """Compare the model of 1 and 2 workers of this machine with what bench/cluster.py measured."""
    file = HERE / "results" / "cluster.json"
    cluster = json.loads(file.read_text()) if file.exists() else {}
    if "chunk_seconds_by_arrangement" not in cluster:
        return None
    measured = cluster["ratios"]["2 Ray workers / 1"]
    _, network, update = variants(inputs)[BUILT]
    workload = Workload(64, 32, 102, 17, (1.0,))

    def iteration_s(cores: int, name: str) -> float:
        seconds = replace(workload, chunk_seconds=(cluster["chunk_seconds_by_arrangement"][name],))
        return predict(seconds, network, update, Cluster(cores, 2), "scalars", np.random.default_rng(0)).iteration_s

    one = iteration_s(1, "Ray, 1 worker")
    alike, slowed = one / iteration_s(2, "Ray, 1 worker"), one / iteration_s(2, "Ray, 2 workers")
    low, high = measured["interval"]
    return {
        "measured": measured,
        "predicted_with_equal_cores": alike,
        "predicted_with_each_chunk_as_measured": slowed,
        "sentence": (
            f"**Checked where it can be.** 2 local workers against 1: measured {measured['value']:.2f} "
            f"[{low:.2f}, {high:.2f}]; the model says {alike:.2f} for two cores that do not slow each other down, and "
            f"{slowed:.2f} when it is given what a chunk took while both cores of this machine were busy."
        ),
    }


def what_it_takes(inputs: dict, iterations: int) -> list[dict]:
    """Look for 90 %: larger populations, and cores on which episodes take four times as long."""
    rows, variant = [], variants(inputs)[FINE]
    for phase in PHASES:
        for members in (10_000, 20_000, 40_000, 80_000):
            row = beside_18(humanoid("mlp-64-64", phase, 1, members), variant, iterations)
            rows.append({"phase": phase, "slower_cores": 1.0} | row)
        row = beside_18(humanoid("mlp-64-64", phase, 1, slower=4.0), variant, iterations)
        rows.append({"phase": phase, "slower_cores": 4.0} | row)
    return rows


def sizes(inputs: dict, iterations: int) -> list[dict]:
    """Both exchanges as built at three sizes of policy, with the same episodes."""
    rows = []
    seconds, chunk = inputs["chunk_seconds"], inputs["episodes_per_chunk"]
    for num_params in (1_000, 30_000, 1_000_000):
        for name in (BUILT, PARAMETERS):
            exchange, network, update = variants(inputs)[name]
            work = Workload(inputs["members"], chunk, num_params, OBSERVATION_SIZE, tuple(seconds))
            found = sweep(work, network, update, exchange, CORES, NODE, num_iterations=iterations)
            rows += [{"num_params": num_params} | flat(prediction) for prediction in found]
    return rows


def published_curves(inputs: dict, iterations: int) -> list[dict]:
    """Efficiency against cores, late in training, with the size of chunk that is best at 1,440 cores."""
    rows = []
    for name, variant in variants(inputs).items():
        works = [humanoid("mlp-64-64", "late", chunk) for chunk in (1, 2, 4, 8)]
        work = max(works, key=lambda one: beside_18(one, variant, iterations)["efficiency_beside_18"])
        exchange, network, update = variant
        found = sweep(work, network, update, exchange, [c for c in CORES if c >= 18], NODE, num_iterations=iterations)
        rows += [
            {"variant": name, "efficiency_beside_18": prediction.efficiency_beside(found[0])} | flat(prediction)
            for prediction in found
        ]
    return rows


def flat(prediction: Prediction) -> dict:
    return asdict(prediction) | {"limit": prediction.limit}


def draw(rows: list[dict], curves: list[dict], path: Path) -> None:
    """Efficiency against cores: three sizes of policy on the left, the published set-up on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.1), layout="constrained")
    colours = {1_000: LINE, 30_000: OTHER, 1_000_000: WARM}
    for (num_params, exchange), line in grouped(rows, "num_params", "exchange").items():
        left.plot(
            [row["cores"] for row in line],
            [row["efficiency"] for row in line],
            color=colours[num_params],
            linestyle="-" if exchange == "scalars" else "--",
            label=f"{num_params:,} parameters, {exchange}",
        )
    left.set_title("One iteration by number of parameters", fontsize=11, color=INK, loc="left")
    left.set_ylabel("efficiency (speed-up / cores)", fontsize=9)
    styles = {BUILT: (LINE, "-"), FINE: (LINE, ":"), PARAMETERS: (OTHER, "--")}
    for (variant,), line in grouped(curves, "variant").items():
        colour, dashes = styles[variant]
        right.plot(
            [row["cores"] for row in line],
            [row["efficiency_beside_18"] for row in line],
            color=colour,
            linestyle=dashes,
            label=variant,
        )
    right.plot(PUBLISHED["cores"], PUBLISHED["efficiency"], "o", color=WARM, label="published: 1,440 cores, 82 %")
    right.set_title("Humanoid, MLP 64-64, late in training", fontsize=11, color=INK, loc="left")
    right.set_ylabel("efficiency beside 18 cores", fontsize=9)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_ylim(0, 1.05)
        axes.set_xlabel("cores (simulated)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=150)


def grouped(rows: list[dict], *keys: str) -> dict:
    found: dict = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def gather_inputs(arguments: argparse.Namespace) -> tuple[dict, dict]:
    """The numbers, and where each comes from: the command line, then cluster.json, then the defaults above."""
    file = HERE / "results" / "cluster.json"
    cluster = json.loads(file.read_text()) if file.exists() else {}
    inputs, source = {"members": arguments.members}, {"members": "chosen"}
    for name, default in DEFAULTS.items():
        given = getattr(arguments, name)
        if given is not None:
            inputs[name], source[name] = given, "command line"
        elif name in cluster:
            inputs[name], source[name] = cluster[name], "cluster.json"
        else:
            inputs[name], source[name] = default, SAID[name]
    file = HERE / "results" / "coordination.json"
    nodes = json.loads(file.read_text()).get("nodes", []) if file.exists() else []
    measured = max((row["cpu_s"]["value"] for row in nodes), default=0.02)
    inputs["coordination_s"] = measured
    source["coordination_s"] = "coordination.json, 80 nodes" if nodes else "assumed, not measured"
    inputs["low_rank_update_s"] = {
        policy: getattr(arguments, f"low_rank_update_s_{policy.replace('-', '_')}") for policy in MEASURED
    }
    inputs["episodes_per_chunk"] = arguments.episodes_per_chunk or cluster.get("episodes_per_chunk", 2)
    if arguments.chunk_seconds or cluster.get("chunk_seconds"):
        inputs["chunk_seconds"] = arguments.chunk_seconds or cluster["chunk_seconds"]
        source["chunk_seconds"] = "command line" if arguments.chunk_seconds else "cluster.json"
    else:
        work = humanoid("mlp-64-64", "middle", inputs["episodes_per_chunk"])
        inputs["chunk_seconds"] = list(work.chunk_seconds)
        source["chunk_seconds"] = "Humanoid, MLP 64-64, middle of training, from step costs measured on one core"
    return inputs, source


def assumptions(inputs: dict) -> list[str]:
    low, high = (f"{chosen(inputs['chunk_seconds']):.3g}" for chosen in (min, max))
    return [
        f"Chunks of the sweep: {inputs['members']:,} episodes an iteration, {inputs['episodes_per_chunk']} a chunk, "
        f"{low} to {high} s each on one core; a core of the cluster is as fast as the one measured.",
        "Published set-up: 10,000 episodes an iteration, 376 observations, 18 workers a machine; lengths of episodes "
        "are assumed: " + "; ".join(f"{phase}: {said}" for phase, said in PHASES.items()) + ".",
        "A chunk of k episodes costs "
        + "; ".join(
            f"{policy}: {cost['call_s'] * 1e3:.2f} ms a step and {cost['slot_step_s'] * 1e3:.2f} ms a step and episode"
            for policy, cost in MEASURED.items()
        )
        + ".",
        f"An update makes {inputs['rebuild_elements_per_second']:.3g} components a second and core, and every process "
        f"makes it; in the variant that is not built, a machine's processes share blocks of {BLOCK_SIZE:,} parameters.",
        f"A worker a node: 18 threads in {len(lane_threads(NODE, 64))} lanes, whose calls queue for Python's lock; "
        f"simulation {1e3 * SIM_S:.2f} ms a step and core, acting by one thread of the lane; the real crew gives out "
        "runs of chunks; an update takes all cores of its node.",
        "Core-seconds of an update: "
        + "; ".join(
            f"{policy} {noise} {update_core_seconds(inputs, policy, noise):.3g} s"
            for policy in MEASURED
            for noise in NOISE
        )
        + f", low rank where not given by its draws and a product at {PRODUCT_FLOPS:.0e} operations a second; the "
        f"coordinator's own time is {1e3 * inputs['coordination_s']:.3g} ms an iteration.",
        f"A message: {inputs['call_latency_s'] * 1e3:.3g} ms, {inputs['message_cpu_s'] * 1e6:.3g} us of the "
        "coordinator's processor (20 us and a tree of 8 machines each for 'quick messages'), 10 Gb/s links, 256 bytes "
        "of header.",
        "No episode is dropped for being long, no worker dies, no chunk is computed twice, nothing else uses the "
        "cores; the coordinator has a core of its own.",
    ]


def say(result: dict) -> None:
    for sentence in result["assumptions"]:
        print(f"- {sentence}")
    print(f"\nPublished: {PUBLISHED['efficiency']:.0%} at 1,440 cores beside 18. Simulated, best chunk size of each:")
    for (variant, policy, phase), rows in grouped(result["published"], "variant", "policy", "phase").items():
        best = max(rows, key=lambda row: row["efficiency_beside_18"])
        quickest = min(rows, key=lambda row: row["iteration_s_1440"])
        print(
            f"  {variant:<56} {policy:<12} {phase:<7} {best['efficiency_beside_18']:.0%} with chunks of "
            f"{best['episodes_per_chunk']}, quickest {quickest['iteration_s_1440']:.2f} s with chunks of "
            f"{quickest['episodes_per_chunk']}; limit: {best['limit']}"
        )
    print("\nWhat it takes (MLP 64-64, chunks of 1, update shared finely, quick messages):")
    for row in result["what_it_takes"]:
        print(
            f"  {row['phase']:<7} {row['members']:>6,} members, cores {row['slower_cores']:.0f}x slower: "
            f"{row['efficiency_beside_18']:.0%} (limit: {row['limit']})"
        )


def say_nodes(rows: list[dict]) -> None:
    print("\nWorkers of several cores; the quickest size of chunk, and the one that is best beside 18 cores:")
    for (policy, cores, noise, lag), own in grouped(rows, "policy", "cores_per_worker", "noise", "lag").items():
        print(f"  {policy}, workers of {cores} cores, {noise}, lag {lag}:")
        for (phase,), found in grouped(own, "phase").items():
            row = min(found, key=lambda row: row["iteration_s_1440"])
            most = max(found, key=lambda row: row["efficiency_beside_18"])
            money = " or ".join(f"{value:.1f}" for value in row["money"].values())
            print(
                f"    {phase:<7} {row['iteration_s_1440']:.2f} s with chunks of {row['episodes_per_chunk']}: "
                f"{row['efficiency_beside_18']:.0%} beside 18, {row['useful_share_of_cores']:.0%} of the cores' time "
                f"is episodes and update, {money} USD; at most {most['efficiency_beside_18']:.0%} beside 18, with "
                f"chunks of {most['episodes_per_chunk']}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk-seconds", type=float, nargs="+", help="measured chunks for the sweep, one core")
    parser.add_argument("--episodes-per-chunk", type=int, help="episodes in each of those chunks")
    parser.add_argument("--rebuild-elements-per-second", type=float)
    parser.add_argument("--call-latency-s", type=float)
    parser.add_argument("--message-cpu-s", type=float, help="the coordinator's processor time for a message")
    parser.add_argument("--members", type=int, default=10_000, help="members of the sweep's population")
    parser.add_argument("--iterations", type=int, default=5, help="iterations simulated for each point")
    for policy in MEASURED:
        parser.add_argument(
            f"--low-rank-update-s-{policy}", type=float, help="measured core-seconds of an update of 5,000 pairs"
        )
    arguments = parser.parse_args()
    inputs, source = gather_inputs(arguments)
    result = {
        **head(" ".join(["python bench/simulation.py", *sys.argv[1:]])),
        "source_of_inputs": source,
        "inputs": inputs | {"chunk_seconds": summary(inputs["chunk_seconds"]), "measured_steps": MEASURED},
        "assumptions": assumptions(inputs),
        "published_point": PUBLISHED,
        "check": check(inputs),
        "nodes": with_nodes(inputs, arguments.iterations),
        "published": published(inputs, arguments.iterations),
        "what_it_takes": what_it_takes(inputs, arguments.iterations),
        "published_curves": published_curves(inputs, arguments.iterations),
        "sweep": sizes(inputs, arguments.iterations),
    }
    say(result)
    say_nodes(result["nodes"])
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "simulation.json").write_text(json.dumps(result, indent=1))
    draw(result["sweep"], result["published_curves"], HERE.parent / "docs" / "images" / "scaling.png")


def summary(seconds: list[float]) -> dict:
    """A sample too long to write down."""
    return {"count": len(seconds), "mean": float(np.mean(seconds)), "deviation": float(np.std(seconds))}


if __name__ == "__main__":
    main()
