"""Plant bugs, one at a time, in a copy of the checkout, and see that the tests named with each turn red.

The list is in the TOML files beside this one: each bug has a name, a file, the text before and after, and the tests
that must notice. A bug that no test notices *survives*, and the exit code is 1.

    python tests/mutants/plant.py [NAME ...] [--jobs 2] [--list FILE ...] [--write docs/mutants.md]
"""

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
LISTS = sorted(Path(__file__).parent.glob("*.toml"))

TIMEOUT_S = 600.0

PASSED, FAILED = 0, 1
"""Exit codes of pytest; any other says that the tests could not be run at all."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A planted bug.

    Attributes:
        name: what is wrong, in a few words.
        file: where, from the root of the checkout.
        before: text that is there exactly once.
        after: what takes its place.
        tests: arguments for pytest: files or node ids.
        family: the list it is from.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]
    family: str

    def is_called(self, names: Sequence[str]) -> bool:
        """Tell whether it belongs to a family of that name, or its own name holds one of them; always where none is."""
        return not names or any(name == self.family or name in self.name for name in names)

    def planted(self, text: str) -> str:
        """Return the file's text with the bug in it.

        Raises:
            ValueError: the text to be replaced is not there exactly once.
        """
        found = text.count(self.before)
        if found != 1:
            raise ValueError(f"{self.name!r}: the text to replace is {found} times in {self.file}, expected once.")
        return text.replace(self.before, self.after)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the tests made of a planted bug: `verdict` is "noticed", "survived" or "not run" (to their end)."""

    mutant: Mutant
    verdict: str
    by: str
    seconds: float


def read(lists: Sequence[Path] = LISTS) -> list[Mutant]:
    """Return the planted bugs of all lists."""
    return [
        Mutant(**{**entry, "tests": tuple(entry["tests"])}, family=path.stem)
        for path in lists
        for entry in tomllib.loads(path.read_text())["mutant"]
    ]


def copy_checkout(target: Path) -> None:
    """Copy the tracked and the new files of the checkout, as they are now."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    subprocess.run(["git", "init", "--quiet", str(target)], check=True)  # some tests ask git for the tracked files
    subprocess.run(["git", "-C", str(target), "add", "--all"], check=True)


def surroundings(folder: Path) -> dict[str, str]:
    """Return the environment variables of the tests in a copy.

    All copies share the programs that they compile, which are found by what they compute: a bug in one makes another.
    """
    compiled = folder.parent / "compiled"
    compiled.mkdir(mode=0o700, exist_ok=True)
    return {**os.environ, "PYTHONPATH": str(folder), "WORKHORSE_COMPILE_CACHE": str(compiled)}


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """Run tests in a copy; return pytest's exit code, None where they took too long, and the first that failed."""
    environment = {**surroundings(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", "-m", "slow or not slow"]
    try:
        done = subprocess.run(
            [*command, *tests], cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return None, f"no end within {TIMEOUT_S:.0f} s"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, failed[1] if failed else done.stdout[-2000:] + done.stderr[-2000:]


def judge(mutant: Mutant, folder: Path) -> Outcome:
    """Plant one bug in a copy, run its tests, and take it out again."""
    place, begun = folder / mutant.file, time.monotonic()
    sound = place.read_text()
    place.write_text(mutant.planted(sound))
    try:
        code, said = run_tests(folder, mutant.tests)
    finally:
        place.write_text(sound)
    verdict = "survived" if code == PASSED else "noticed" if code == FAILED else "not run"  # a wait proves nothing
    return Outcome(mutant, verdict, said if verdict != "survived" else "", time.monotonic() - begun)


def judge_all(mutants: Sequence[Mutant], jobs: int, place: Path) -> Iterator[Outcome]:
    """Judge the bugs side by side, each in a copy of its own, and yield what came of them in the order of the list."""
    with ThreadPoolExecutor(jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copy_checkout(place / str(number))
            copies.put(place / str(number))

        def one(mutant: Mutant) -> Outcome:
            folder = copies.get()
            try:
                return judge(mutant, folder)
            finally:
                copies.put(folder)

        yield from pool.map(one, mutants)


def sound_tests(mutants: Sequence[Mutant], jobs: int, place: Path) -> bool:
    """Tell whether all the tests pass without a bug; otherwise a red one would prove nothing."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    folder = place / "sound"
    copy_checkout(folder)
    command = [sys.executable, "-m", "pytest", "-q", f"-n{jobs}", "-m", "slow or not slow", *tests]
    return subprocess.run(command, cwd=folder, env=surroundings(folder)).returncode == PASSED


def page(mutants: Sequence[Mutant], outcomes: Sequence[Outcome], before: str = "") -> str:
    """Return the table for the documents: a row for each bug, with what came of it now, or in the table before.

    Args:
        mutants: the whole list.
        outcomes: of those that were judged now.
        before: the page as it was; rows of bugs that were not judged now are taken over.
    """
    last = "| **not measured** |"
    rows = {row.rsplit("|", 2)[0]: f"|{row.rsplit('|', 2)[1]}|" for row in before.splitlines() if row.startswith("| ")}
    for outcome in outcomes:
        by = f"`{_short(outcome.by)}`" if outcome.verdict == "noticed" else f"**{outcome.verdict}**"
        rows[_row(outcome.mutant)] = f"| {by} |"
    found = {_row(mutant): rows.get(_row(mutant), last) for mutant in mutants}
    noticed = sum(end.startswith("| `") for end in found.values())
    missing = sum(end == last for end in found.values())
    lines = [
        "# Planted bugs",
        "",
        "A test that would pass if the code were broken is a defect. `make mutants` plants each bug of this list, one",
        "at a time, in a copy of the checkout and runs the tests named with it: at least one must turn red. The list",
        "is in `tests/mutants/`, and every part of Workhorse adds its own.",
        "",
        f"{noticed} of the {len(mutants) - missing} that were judged are noticed, and {missing} were not measured yet.",
        "`python tests/mutants/plant.py --write docs/mutants.md` renews the rows of the bugs that it judges.",
        "",
        "| family | what is wrong | where | noticed by |",
        "|---|---|---|---|",
    ]
    lines += [row + end for row, end in found.items()]
    return "\n".join(lines) + "\n"


def _row(mutant: Mutant) -> str:
    """Return the first cells of a bug's row, by which it is known."""
    return f"| {mutant.family} | {mutant.name} | `{mutant.file.removeprefix('workhorse/')}` "


def _short(node: str) -> str:
    """Return a node id without the folder of the tests and the parameters."""
    return node.removeprefix("tests/").partition("[")[0]


def main() -> int:
    """Judge the bugs named on the command line, or all of them; return 1 where one survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names or families; all bugs by default")
    parser.add_argument("--jobs", type=int, default=2, help="copies side by side")
    parser.add_argument("--list", type=Path, action="append", help="a list to read instead of the committed ones")
    parser.add_argument("--write", type=Path, help="file for the table")
    parser.add_argument("--trust-the-tests", action="store_true", help="do not first run them without a bug")
    options = parser.parse_args()
    mutants = [mutant for mutant in read(options.list or LISTS) if mutant.is_called(options.names)]
    with tempfile.TemporaryDirectory(prefix="workhorse-mutants-") as place:
        if not options.trust_the_tests and not sound_tests(mutants, options.jobs, Path(place)):
            print("The tests fail without a planted bug: mend them first.", file=sys.stderr)
            return 2
        outcomes = []
        for outcome in judge_all(mutants, options.jobs, Path(place)):
            outcomes.append(outcome)
            name, by = f"{outcome.mutant.family}: {outcome.mutant.name}", outcome.by.splitlines()[-1:]
            print(f"{outcome.verdict:8} {outcome.seconds:5.0f} s  {name}  {''.join(by)}", flush=True)
            if options.write:
                before = options.write.read_text() if options.write.exists() else ""
                options.write.write_text(page(read(), [outcome], before))
    unnoticed = [outcome for outcome in outcomes if outcome.verdict != "noticed"]
    print(f"{len(outcomes) - len(unnoticed)} of {len(outcomes)} noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
