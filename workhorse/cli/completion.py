"""`workhorse completion SHELL`: print a script that completes commands, options, tasks, algorithms and run folders.

The script holds all words, so that pressing Tab starts no Python.
"""

import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from workhorse.algorithms import registry
from workhorse.cli.options import parse
from workhorse.cli.places import places_of
from workhorse.environments.registry import TASKS

__all__ = ["CompletionOptions", "run"]


@dataclasses.dataclass
class CompletionOptions:
    """Print a script that completes workhorse's words in your shell.

    bash: add `eval "$(workhorse completion bash)"` to ~/.bashrc.

    zsh: add `eval "$(workhorse completion zsh)"` to ~/.zshrc, below compinit.

    fish: workhorse completion fish > ~/.config/fish/completions/workhorse.fish
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """The shell that reads the script: bash, zsh or fish."""


def run(arguments: Sequence[str]) -> int:
    """Print the completion script of a shell and return the exit code."""
    shell = parse(CompletionOptions, arguments).shell
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](_commands()))
    return 0


@dataclasses.dataclass(frozen=True)
class _Command:
    """Words that may follow a command.

    Attributes:
        summary: of the command.
        flags: options, each with a sentence.
        switches: those that take no value.
        values: words that an option's value may be.
        words: words that may stand alone.
        roots: folders whose folders may stand alone, with the file that each must hold.
    """

    summary: str
    flags: tuple[str, ...]
    switches: tuple[str, ...]
    values: Mapping[str, Sequence[str]]
    words: tuple[str, ...]
    roots: Mapping[str, str]


def _commands() -> dict[str, _Command]:
    from workhorse.cli.main import COMMANDS  # which imports the commands by name

    found = {}
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"workhorse.cli.{name}")
        found[name] = _command(summary, getattr(module, f"{name.capitalize()}Options"))
    return found


_WORDS: Mapping[str, Sequence[str]] = {"task": tuple(TASKS), "tasks": tuple(TASKS), "cluster": ("auto", "local")}


def _command(summary: str, options: Any) -> _Command:
    flags, switches, values, words, roots = ["--help"], ["--help"], {}, [], {}
    known = {**_WORDS, **dict.fromkeys(("algorithm", "algorithms", "name"), tuple(registry.entries()))}
    for name, annotation in get_type_hints(options, include_extras=True).items():
        flag = f"--{name.replace('_', '-')}"
        may_be = known.get(name) or _choices(annotation)
        if tyro.conf.Positional in getattr(annotation, "__metadata__", ()):
            words += may_be
            roots |= {root: file for place in places_of(annotation) for root, file in place.roots.items()}
            continue
        flags.append(flag)
        if annotation is bool:
            flags.append(f"--no-{flag[2:]}")
            switches += [flag, f"--no-{flag[2:]}"]
        elif may_be:
            values[flag] = may_be
    return _Command(summary, tuple(flags), tuple(switches), values, tuple(words), roots)


def _choices(annotation: Any) -> tuple[str, ...]:
    """Return the words of a `Literal`, wherever it stands in an annotation."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    return tuple(word for inner in get_args(annotation) for word in _choices(inner))


def _flags_of(algorithm: str) -> list[str]:
    """Return the options of an algorithm."""
    found = []
    for option in registry.options(algorithm).values():
        flag = f"--{option.name.replace('_', '-')}"
        found += [flag, f"--no-{flag[2:]}"] if option.annotation is bool else [flag]
    return found


def _switches_of_algorithms() -> list[str]:
    """Return the options of all algorithms that take no value."""
    rows = [option for name in registry.entries() for option in registry.options(name).values()]
    flags = dict.fromkeys(option.name.replace("_", "-") for option in rows if option.annotation is bool)
    return [word for flag in flags for word in (f"--{flag}", f"--no-{flag}")]


def _values_of_algorithms() -> dict[str, Sequence[str]]:
    """Return the words that values of the algorithms' options may be."""
    found: dict[str, dict[str, None]] = {}
    for name in registry.entries():
        for option in registry.options(name).values():
            if words := _choices(option.annotation):
                found.setdefault(f"--{option.name.replace('_', '-')}", {}).update(dict.fromkeys(words))
    return {flag: tuple(words) for flag, words in found.items()}


_BASH = """\
# Completion of workhorse for bash, printed by `workhorse completion bash`.

_workhorse_folders() {{
    local file
    for file in "$1"/*/"$2"; do
        if [[ -e "$file" ]]; then printf '%s ' "${{file%/*}}"; fi
    done
}}

_workhorse() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}"
    local words="" algorithm="" i
    for ((i = 2; i < COMP_CWORD; i++)); do
        if [[ "${{COMP_WORDS[i]}}" == --algorithm ]]; then algorithm="${{COMP_WORDS[i+1]}}"; fi
    done
    if ((COMP_CWORD == 1)); then
        words="{commands} help --help --version"
    elif [[ "$current" == -* ]]; then
        case "$command" in
{flags}
        esac
        if [[ "$command" == train ]]; then
            case "$algorithm" in
{algorithms}
            esac
        fi
    else
        case "$command $before" in
{values}
{switches}
            *" --"*) ;;
{words}
            help*) words="{commands}" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}

complete -o default -F _workhorse workhorse
"""


def _bash(commands: Mapping[str, _Command]) -> str:
    every = dict.fromkeys(flag for name in registry.entries() for flag in _flags_of(name))
    flags = [(name, " ".join(command.flags)) for name, command in commands.items()]
    algorithms = [(name, f"$words {' '.join(_flags_of(name))}") for name in registry.entries()]
    values = [
        (f'"{name} {flag}"', " ".join(words))
        for name, command in commands.items()
        for flag, words in {**command.values, **(_values_of_algorithms() if name == "train" else {})}.items()
    ]
    alone = {name: _alone(command) for name, command in commands.items()}
    switches = [
        (f'"{name} {flag}"', alone[name])
        for name, command in commands.items()
        for flag in [*command.switches, *(_switches_of_algorithms() if name == "train" else [])]
        if flag != "--help" and alone[name]
    ]
    return _BASH.format(
        commands=" ".join(commands),
        flags=_cases(flags),
        algorithms=_cases([*algorithms, ("*", f"$words {' '.join(every)}")]),
        values=_cases(values),
        switches=_cases(switches),
        words=_cases([(f'"{name} "*', text) for name, text in alone.items() if text]),
    )


def _cases(rows: Iterable[tuple[str, str]]) -> str:
    """Return the branches of a shell's `case`, patterns of equal words together."""
    patterns: dict[str, list[str]] = {}
    for pattern, words in rows:
        patterns.setdefault(words, []).append(pattern)
    return "\n".join(f'            {" | ".join(some)}) words="{words}" ;;' for words, some in patterns.items())


def _alone(command: _Command) -> str:
    """Return the words that may stand alone, as bash's text: some are looked for when Tab is pressed."""
    looked_for = [f"$(_workhorse_folders {root} {file})" for root, file in command.roots.items()]
    return " ".join([*command.words, *looked_for])


def _zsh(commands: Mapping[str, _Command]) -> str:
    script = _bash(commands).replace("for bash, printed by `workhorse completion bash`", "for zsh")
    return f"autoload -Uz bashcompinit && bashcompinit\n{script}"


def _fish(commands: Mapping[str, _Command]) -> str:
    lines = ["# Completion of workhorse for fish, printed by `workhorse completion fish`.", "complete -c workhorse -f"]
    for name, command in commands.items():
        here = f"complete -c workhorse -n '__fish_seen_subcommand_from {name}'"
        lines.append(f"complete -c workhorse -n __fish_use_subcommand -a {name} -d {_quoted(command.summary)}")
        values = {**command.values, **(_values_of_algorithms() if name == "train" else {})}
        of_algorithms = [flag for row in registry.entries() for flag in _flags_of(row)] if name == "train" else []
        switches = {*command.switches, *(_switches_of_algorithms() if name == "train" else [])}
        for flag in dict.fromkeys([*command.flags, *of_algorithms]):
            takes = "" if flag in switches else f" -x -a {_quoted(' '.join(values[flag]))}" if flag in values else " -r"
            lines.append(f"{here} -l {flag[2:]}{takes}")
        if command.words:
            lines.append(f"{here} -a {_quoted(' '.join(command.words))}")
        for root, file in command.roots.items():
            lines.append(f"{here} -a '(for file in {root}/*/{file}; dirname $file; end)'")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
