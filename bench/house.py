"""Count what a reader meets in a checkout: lines, long files and functions, untyped parameters, reading radius.

    python bench/house.py CHECKOUT [CHECKOUT ...]

Lines are those of everything under `workhorse/` that git tracks. The reading radius of a file is the number of the
project's lines that can be reached from it by import.
"""

import ast
import subprocess
import sys
from pathlib import Path

RADII = ("workhorse.algorithms.policy_gradient.ppo", "workhorse.algorithms.evolution.openai_es")
LONG_FUNCTION, LONG_FILE = 60, 400


def files_of(checkout: Path) -> list[Path]:
    """Return the tracked files of the package."""
    listed = subprocess.run(["git", "ls-files", "workhorse"], cwd=checkout, capture_output=True, text=True, check=True)
    return [checkout / name for name in listed.stdout.split()]


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return every function and method, nested ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def any_share(trees: list[ast.Module]) -> tuple[int, int]:
    """Return how many parameters are annotated with exactly `Any`, and how many parameters there are."""
    parameters = [
        argument
        for tree in trees
        for function in functions(tree)
        for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        if argument.arg not in ("self", "cls")
    ]
    untyped = [one for one in parameters if one.annotation is not None and ast.unparse(one.annotation) == "Any"]
    return len(untyped), len(parameters)


def radius(checkout: Path, start: str) -> int:
    """Return the lines of a module and of all modules of the project that it imports, directly or not."""
    found: dict[Path, int] = {}
    waiting = [start]
    while waiting:
        place = checkout.joinpath(*waiting.pop().split("."))
        path = place.with_suffix(".py") if place.with_suffix(".py").exists() else place / "__init__.py"
        if path in found or not path.exists():
            continue
        text = path.read_text()
        found[path] = text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workhorse"):
                waiting += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sum(found.values())


def measured(checkout: Path) -> dict[str, str]:
    """Return every count by its name."""
    files = files_of(checkout)
    sources = {path: path.read_text() for path in files if path.suffix == ".py"}
    trees = {path: ast.parse(text) for path, text in sources.items()}
    long = [node for tree in trees.values() for node in functions(tree) if _lines(node) > LONG_FUNCTION]
    counts = {
        "lines of the package": sum(path.read_bytes().count(b"\n") for path in files),
        f"functions over {LONG_FUNCTION} lines": len(long),
        f"files over {LONG_FILE} lines": sum(text.count("\n") > LONG_FILE for text in sources.values()),
    }
    counts |= {f"reading radius of {name.rpartition('.')[2]}.py": radius(checkout, name) for name in RADII}
    shown = {name: f"{count:,}" for name, count in counts.items()}
    for folder in ("", "training", "diagnostics"):
        inside = [tree for path, tree in trees.items() if path.is_relative_to(checkout / "workhorse" / folder)]
        untyped, parameters = any_share(inside)
        shown[f"parameters typed as bare Any, {folder or 'package'}"] = f"{100 * untyped / parameters:.1f} %"
    return shown


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def main() -> None:
    """Print a table with a column for each checkout."""
    columns = [measured(Path(name).resolve()) for name in sys.argv[1:]]
    for name in columns[0]:
        print(f"{name:44}", *(f"{column[name]:>10}" for column in columns))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main()
