"""Compare rankings of policies by a log with true returns: `bench/offline_selection.py --keep FOLDER [--updates 8000]`.

The policies are those of `bench/offline_warnings.py --keep FOLDER`, good and bad ones, of seed 0; the truth about each
is its last evaluation in the task. Logs are asked in turn; *some of the policies learnt from them*. Regret at 1 is what
the chosen policy lacks of the best one, as a share of what the worst lacks.
"""

import argparse
import json
from pathlib import Path

from record import head

from workhorse.data.opening import open_dataset
from workhorse.diagnostics.selection import Selection, folders, select

HERE = Path(__file__).parent


def found_of(selection: Selection) -> dict:
    """The part of a selection that the result keeps."""
    return {
        "log": selection.log,
        "rankings": {name: one._asdict() for name, one in selection.rankings.items()},
        "candidates": [
            {"truth": one.truth, "estimates": {name: given.interval.value for name, given in one.estimates.items()}}
            for one in selection.candidates
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", default="/tmp/offline-warnings")
    parser.add_argument("--logs", nargs="+", default=["medium", "random"])
    parser.add_argument("--updates", type=int, default=8_000)
    arguments = parser.parse_args()
    place = Path(arguments.keep)
    runs = folders(sorted(path for path in (place / "runs").iterdir() if "-s0-" in path.name))
    runs = [run for run in runs if (status := run.status()) and status.last_return is not None]
    found = []
    for log in arguments.logs:
        selection = select(open_dataset(place / "logs" / log), runs, updates=arguments.updates)
        found.append(found_of(selection))
        for name, one in selection.rankings.items():
            print(f"{log}: {name}: correlation {one.correlation:.2f}, regret {one.regret:.1%}")
    result = {
        **head(f"python bench/offline_selection.py --updates {arguments.updates}"),
        "runs": len(runs),
        "logs": found,
    }
    (HERE / "results" / "offline_selection.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
