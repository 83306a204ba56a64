"""Eight CartPole runs on two nodes in network namespaces, one of them killed: `python bench/studies.py --case cluster`.

A Ray head without cores and two nodes of one core each, on a bridge of this machine (Linux, as root). Node two is
killed, every process of it, while it trains. The study must finish all eight runs, with the table and the digests of
the same study on this machine. Each node has a /tmp of its own, in memory, so no folder of a run is shared.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from record import head
from wire import NODES, PORT, ROOT, Network, Unavailable, end, joined

from workhorse.runs.metrics import read_metrics

__all__ = ["run_case"]

STUDY = """
tasks: [CartPole-v1]
algorithms: [ars, ppo]
seeds: 4
env_steps: {env_steps}
evaluations: 4
"""
OF_THE_CLOCK = ("wall_s", "core_hours")
PATIENCE_S = 900.0
OWN_TMP = ("sh", "-c", 'mount -t tmpfs tmpfs /tmp && exec "$@"', "sh")
"""Begins a command with an empty /tmp; `ip netns exec` has given it mounts of its own."""


def run_case(env_steps: int, file: Path) -> int:
    """Run the case, print and write what came of it, and return 0 where all is as it should be."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the namespaces are taken down
    try:
        with tempfile.TemporaryDirectory(prefix="whs", dir="/tmp", ignore_cleanup_errors=True) as place:
            found = measured(Path(place), env_steps)
    except Unavailable as error:
        print(f"network namespaces cannot be made here: {error}", file=sys.stderr)
        return 77
    print("\n".join(f"{name.replace('_', ' '):<32} {value}" for name, value in found.items()))
    command = f"python bench/studies.py --case cluster --env-steps {env_steps}"
    file.write_text(json.dumps({**head(command), **found}, indent=1))
    good = found["runs_finished"] == 8 and found["table_equal"] and found["digests_equal"] and found["jobs_lost"] > 0
    return 0 if good else 1


def measured(place: Path, env_steps: int) -> dict:
    (place / "study.yaml").write_text(STUDY.format(env_steps=env_steps))
    words = [sys.executable, "-m", "workhorse", "study", "study.yaml", "--studies", "studies"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    begun = time.monotonic()
    subprocess.run([*words, "--id", "local"], cwd=place, env=env, check=True, capture_output=True, timeout=PATIENCE_S)
    local_s, begun = time.monotonic() - begun, time.monotonic()
    said = on_two_nodes(place, [*words, "--id", "nodes", "--cluster", f"{NODES['head']}:{PORT}"], env)
    local, nodes = (place / "studies" / name for name in ("local", "nodes"))
    tables = [table(folder) for folder in (local, nodes)]
    return {
        "runs_finished": int((tables[1]["outcome"] == "finished").sum()),
        "table_equal": tables[0].equals(tables[1]),
        "digests_equal": digests(local) == digests(nodes),
        "jobs_lost": sum("on another worker" in line for line in said),
        "went_on_from_a_checkpoint": sum("goes on from its last checkpoint" in line for line in said),
        "env_steps": env_steps,
        "local_s": round(local_s, 1),
        "nodes_s": round(time.monotonic() - begun, 1),
    }


def on_two_nodes(place: Path, words: list[str], env: dict[str, str]) -> list[str]:
    """Run a study's command on the head, kill node two once a run has ended, and return what was printed."""
    env = env | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=100000000"]
    beginning = ["--head", f"--temp-dir={place / 'ray'}", f"--node-ip-address={NODES['head']}", f"--port={PORT}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with Network() as network:
        started = [network.start("head", [*ray, *beginning, "--num-cpus=0", "--include-dashboard=false"], env, **quiet)]
        try:
            network.await_head(started[0])
            for node in ("one", "two"):
                place_of = [f"--address={NODES['head']}:{PORT}", f"--node-ip-address={NODES[node]}", "--num-cpus=1"]
                node_words = [*OWN_TMP, *ray, *place_of]
                started.append(joined(lambda node=node, words=node_words: network.start(node, words, env, **quiet)))
            pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            driver = network.start("head", words, env, cwd=place, **pipe)
            started.append(driver)
            return followed(network, driver)
        finally:
            for process in reversed(started):
                end(process)


def followed(network: Network, driver: subprocess.Popen) -> list[str]:
    """Read what the study prints to its end; kill node two a few seconds after the first run has ended."""
    assert driver.stdout is not None
    said, killed = [], False
    for line in driver.stdout:
        said.append(line.rstrip())
        print(f"  {said[-1]}", flush=True)
        if not killed and line.startswith("1 of 8  "):
            killed = True
            time.sleep(5.0)  # its next run is under way
            kill_node(network, "two")
            print("  --- node two was killed ---", flush=True)
    if driver.wait(timeout=60):
        raise RuntimeError("the study failed:\n" + "\n".join(said[-20:]))
    return said


def kill_node(network: Network, node: str) -> None:
    """Kill every process of a node at once, as a power cut does."""
    found = subprocess.run(["ip", "netns", "pids", network.space(node)], capture_output=True, text=True, check=True)
    for pid in map(int, found.stdout.split()):
        os.kill(pid, signal.SIGKILL)


def table(folder: Path) -> pl.DataFrame:
    """Return a study's table without what the clock decides."""
    return pl.read_parquet(folder / "results.parquet").drop(OF_THE_CLOCK, strict=False)


def digests(folder: Path) -> dict[str, list[str]]:
    """Return the digests of every iteration of every run."""
    return {run.name: read_metrics(run)["digest"].to_list() for run in sorted((folder / "runs").iterdir())}
