"""What is learnt from a log depends neither on its format nor on whether its rows are in memory or mapped from disk."""

import pytest

from tests.logs import written_log
from workhorse.core.digest import digest
from workhorse.data.opening import convert_dataset, open_dataset
from workhorse.training import offline
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.sources import Sources


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """One log in each format that keeps every bit."""
    folder = tmp_path_factory.mktemp("logs")
    own = written_log(folder / "own", "MountainCarContinuous-v0", num_episodes=6, most_steps=20)
    found = {"workhorse": own}
    for to, name in (("minari", "log-v0"), ("d4rl", "log.hdf5"), ("parquet", "log.parquet")):
        convert_dataset(own, folder / name, to)
        found[to] = folder / name
    return found


def learnt(log):
    """Return the digest of td3+bc after 3 iterations of 5 updates."""
    about = Sources("offline", str(log), open_dataset(log).digest(), evaluate=False, updates_per_iteration=5)
    plan = Plan("MountainCarContinuous-v0", {}, "td3+bc", {"hidden": (8,), "batch_size": 16}, 3, sources=about)
    loop = make_loop(plan, plan.spec(), 1)
    progress = loop.start()
    for _ in range(3):
        progress, _, _ = loop.iterate(progress)
    loop.close()
    return digest(progress.state)


@pytest.fixture(scope="module")
def wanted(places):
    return learnt(places["workhorse"])


@pytest.mark.parametrize("to", ["minari", "d4rl", "parquet"])
def test_every_format_gives_the_bits_of_our_own(places, wanted, to):
    assert learnt(places[to]) == wanted


@pytest.mark.parametrize("to", ["workhorse", "parquet"])
def test_rows_on_disk_give_the_bits_of_rows_in_memory(places, wanted, to, monkeypatch):
    read, lengths = offline.OfflineLoop._read, []
    monkeypatch.setattr(offline.OfflineLoop, "_read", lambda self, rows: lengths.append(len(rows)) or read(self, rows))
    monkeypatch.setattr(offline, "MEMORY_SHARE", 0.0)
    assert learnt(places[to]) == wanted
    assert lengths.count(5 * 16) == 3, "the rows of each iteration were not gathered from the log"
