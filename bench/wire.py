"""Bytes on the wire: `python bench/wire.py [--quick] [--json FILE]` (Linux, as root).

A Ray head and two worker nodes, each in a network namespace of its own on a bridge of this machine. The counters of
the worker nodes' network interfaces are read before and after windows of training iterations, so everything is in them
that would cross a real network: Ray's framing, TCP and Ethernet headers, acknowledgements. What the cluster says to
itself while the workers stand idle is measured in the same way and subtracted, by time.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from record import head

ROOT = Path(__file__).resolve().parents[1]
NODES = {"head": "10.177.9.1", "one": "10.177.9.2", "two": "10.177.9.3"}
PORT = 6399
POLICIES = {"1k": (140,), "30k": (170, 170), "1M": (1000, 990)}
PAIRS, SLOTS = 16, 8

DRIVER = """
import json, sys, time
from workhorse.distributed.ray_transport import RayTransport, connect
connect(sys.argv[1])
from workhorse.distributed.cluster import Cluster
from workhorse.training.evolve import Evolve
from workhorse.training.plan import Plan
from workhorse.training.population import PopulationPrograms

exchange, hidden, pairs, slots, windows, iterations, idle_s = json.loads(sys.argv[2])

def mark(name, **fields):
    print(json.dumps({"mark": name, **fields}), flush=True)
    sys.stdin.readline()

settings = {"num_pairs": pairs, "policy": "mlp", "hidden": tuple(hidden)}
plan = Plan("CartPole-v1", {"max_episode_steps": 20}, "openai-es", settings, 0, slots)
programs = PopulationPrograms(plan.make_algorithm(plan.spec()), plan.seed)
# nothing is issued twice here: a copy would be counted
say = lambda sentence: print(sentence, file=sys.stderr)
cluster = Cluster(plan, programs, RayTransport(2, 1), exchange, say, patience_floor_s=1e9)
loop = Evolve(programs, cluster)
progress = loop.start()
deadline = time.monotonic() + 180
while cluster._crew.size < 2:
    assert time.monotonic() < deadline, "the worker nodes did not join"
    for event in cluster._transport.poll(0.5):
        cluster._react(event)
for _ in range(4):
    progress, _, _ = loop.iterate(progress)
cluster.metrics(), cluster.messages()
mark("ready", num_params=programs.algorithm.num_params, cost=cluster.cost._asdict())
time.sleep(idle_s)
mark("idle")
for _ in range(windows):
    for _ in range(iterations):
        progress, _, _ = loop.iterate(progress, lambda env_steps: True)
    found = cluster.metrics()
    ours = ("updates", "orders", "parameters", "reports")
    rows = [row for row in cluster.messages() if row.purpose in ours]
    mark("window", ours_sent=sum(row.sent for row in rows), ours_received=sum(row.received for row in rows),
         update_s=found["workers_updating_s"])
cluster.close()
"""


class Unavailable(Exception):
    """Namespaces cannot be made here; the message says why."""


def command(*words: str) -> None:
    answer = subprocess.run(words, capture_output=True, text=True)
    if answer.returncode:
        raise Unavailable(f"`{' '.join(words)}` failed: {answer.stderr.strip() or answer.stdout.strip()}")


class Network:
    """Three namespaces on a bridge that is in a fourth."""

    def __init__(self) -> None:
        self.tag = f"wh{os.getpid() % 100_000}"
        self.made: list[str] = []

    def __enter__(self) -> "Network":
        try:
            self._space("bridge")
            bridge = ("ip", "netns", "exec", self.space("bridge"))
            command(*bridge, "ip", "link", "add", "bridge", "type", "bridge")
            command(*bridge, "ip", "link", "set", "bridge", "up")
            for node, address in NODES.items():
                self._space(node)
                inside, outside = ("ip", "netns", "exec", self.space(node)), f"to-{node}"
                command(*bridge, "ip", "link", "add", outside, "type", "veth", "peer", "name", "net")
                command(*bridge, "ip", "link", "set", "net", "netns", self.space(node))
                command(*bridge, "ip", "link", "set", outside, "master", "bridge", "up")
                command(*inside, "ip", "address", "add", f"{address}/24", "dev", "net")
                command(*inside, "ip", "link", "set", "lo", "up")
                command(*inside, "ip", "link", "set", "net", "up")
        except FileNotFoundError as error:
            self.__exit__()
            raise Unavailable(f"{error.filename} is not installed") from error
        except Unavailable:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for space in reversed(self.made):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)

    def space(self, node: str) -> str:
        return f"{self.tag}-{node}"

    def _space(self, node: str) -> None:
        command("ip", "netns", "add", self.space(node))
        self.made.append(self.space(node))

    def start(self, node: str, words: list[str], env: dict[str, str], **options) -> subprocess.Popen:
        full = ["ip", "netns", "exec", self.space(node), *words]
        return subprocess.Popen(full, env=env, start_new_session=True, **options)

    def await_head(self, head: subprocess.Popen) -> None:
        """Wait until the head answers."""
        probe = f"import socket; socket.create_connection(({NODES['head']!r}, {PORT}), 2).close()"
        deadline = time.monotonic() + 120
        while subprocess.run(
            ["ip", "netns", "exec", self.space("head"), sys.executable, "-c", probe], capture_output=True
        ).returncode:
            if head.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the head of the Ray cluster did not start")
            time.sleep(0.5)

    def counters(self, node: str) -> tuple[int, int]:
        """Bytes received and sent by a node's interface."""
        inside = ["ip", "netns", "exec", self.space(node), "cat"]
        files = [f"/sys/class/net/net/statistics/{kind}_bytes" for kind in ("rx", "tx")]
        words = subprocess.run([*inside, *files], capture_output=True, text=True, check=True).stdout.split()
        return int(words[0]), int(words[1])


def end(process: subprocess.Popen) -> None:
    """End a process started here, with its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measure(exchange: str, hidden: tuple[int, ...], windows: int, iterations: int, idle_s: float) -> dict:
    """Bytes a worker node received and sent an iteration, chatter subtracted, window by window."""
    with (
        Network() as network,
        tempfile.TemporaryDirectory(prefix="whw", dir="/tmp", ignore_cleanup_errors=True) as place,
    ):
        env = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=100000000"]
        log = Path(place, "ray.log").open("w+")  # noqa: SIM115
        quiet = {"stdout": log, "stderr": log}
        head = [f"--node-ip-address={NODES['head']}", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false"]
        started = [network.start("head", [*ray, "--head", f"--temp-dir={place}", *head], env, **quiet)]
        try:
            network.await_head(started[0])
            for node in ("one", "two"):
                words = [*ray, f"--address={NODES['head']}:{PORT}", f"--node-ip-address={NODES[node]}", "--num-cpus=1"]
                started.append(joined(lambda node=node, words=words: network.start(node, words, env, **quiet)))
            work = json.dumps([exchange, hidden, PAIRS, SLOTS, windows, iterations, idle_s])
            words = [sys.executable, "-c", DRIVER, f"{NODES['head']}:{PORT}", work]
            driver = network.start(
                "head", words, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            started.append(driver)
            return follow(network, driver, iterations)
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}\nRay said:\n{log.read()[-3000:]}") from None
        finally:
            for process in reversed(started):
                end(process)


def joined(start: Callable[[], subprocess.Popen], settle_s: float = 8.0, attempts: int = 5) -> subprocess.Popen:
    """A node that stays: nodes that share a disk and start at the same moment can trip over each other's files."""
    for _ in range(attempts):
        process = start()
        deadline = time.monotonic() + settle_s
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        if process.poll() is None:
            return process
    raise RuntimeError("a worker node did not start")


def follow(network: Network, driver: subprocess.Popen, iterations: int) -> dict:
    """Read the interfaces at every mark of the driver."""
    assert driver.stdout is not None and driver.stdin is not None and driver.stderr is not None
    found: dict = {"windows": []}
    before, then, chatter = (0, 0), 0.0, (0.0, 0.0)
    for line in driver.stdout:
        if not line.startswith('{"mark'):
            continue  # Ray says things too
        record = json.loads(line)
        now, clock = total(network), time.monotonic()
        if record["mark"] == "ready":
            found |= {"num_params": record["num_params"], "cost": record["cost"]}
        elif record["mark"] == "idle":
            chatter = tuple((n - b) / (clock - then) for n, b in zip(now, before, strict=True))
            found["chatter_bytes_per_second"] = {"received": chatter[0] / 2, "sent": chatter[1] / 2}
        else:
            share = 2 * iterations
            net = [(n - b - c * (clock - then)) / share for n, b, c in zip(now, before, chatter, strict=True)]
            window = {"received": net[0], "sent": net[1], "seconds_per_iteration": (clock - then) / iterations}
            window |= {"ours_received": record["ours_sent"] / share, "ours_sent": record["ours_received"] / share}
            window["update_s"] = record["update_s"] / share
            found["windows"].append(window)
        driver.stdin.write("\n")
        driver.stdin.flush()
        before, then = total(network), time.monotonic()
    if driver.wait(timeout=60) or not found["windows"]:
        raise RuntimeError(f"the driver failed:\n{driver.stderr.read()}")
    return found


def total(network: Network) -> tuple[int, int]:
    one, two = network.counters("one"), network.counters("two")
    return one[0] + two[0], one[1] + two[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter windows")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "wire.json")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the namespaces are taken down
    windows, idle_s = (3, 5.0) if arguments.quick else (6, 20.0)
    rows = []
    try:
        for exchange, names in (("scalars", POLICIES), ("parameters", ("1k", "30k", "1M"))):
            if arguments.quick and exchange == "parameters":
                continue
            for name in names:
                iterations = 10 if name == "1M" else 40
                row = measure(exchange, POLICIES[name], windows, iterations if not arguments.quick else 6, idle_s)
                rows.append({"exchange": exchange, "policy": name, "pairs": PAIRS} | row)
                print(summary(rows[-1]), flush=True)
    except Unavailable as error:
        print(f"network namespaces cannot be made here: {error}", file=sys.stderr)
        return 77

    record = {
        **head("python bench/wire.py" + (" --quick" if arguments.quick else "")),
        "rows": rows,
    }
    arguments.json.write_text(json.dumps(record, indent=1))
    return 0


def summary(row: dict) -> str:
    from workhorse.statistics.intervals import mean_interval

    words = [f"{row['exchange']:<10} {row['num_params']:>9,} parameters:"]
    for way in ("received", "sent"):
        found = mean_interval([window[way] for window in row["windows"]])
        ours = sum(window[f"ours_{way}"] for window in row["windows"]) / len(row["windows"])
        words.append(f"{way} {found.value:,.0f} [{found.low:,.0f}, {found.high:,.0f}] (messages {ours:,.0f})")
    chatter = row["chatter_bytes_per_second"]
    words.append(f"chatter {chatter['received']:,.0f} in, {chatter['sent']:,.0f} out bytes/s")
    return "  ".join(words)


if __name__ == "__main__":
    sys.exit(main())
