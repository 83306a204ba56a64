"""Put a page for every algorithm of the registry into the menu, so that a new one is not listed by hand."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig

from workhorse.algorithms.registry import entries

SECTION = "Algorithms"
PAGES = Path(__file__).parent / "algorithms"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append `algorithms/NAME.md` of each class, by its own name, to the menu's section of algorithms.

    The classes of a folder that has a page, as `rules` has `algorithms/rules.md`, share it; the menu names it itself.
    A page that is missing, or not in the menu, is an error of the strict build.
    """
    assert config.nav is not None
    section = next(entry[SECTION] for entry in config.nav if SECTION in entry)
    names: dict[tuple[str, str], str] = {}
    for row in entries().values():
        if (PAGES / f"{row.module.split('.')[-2]}.md").exists():
            continue
        names.setdefault((row.module, row.cls), row.name)  # its presets, which come after it, share its page
    section += [{name: f"algorithms/{name}.md"} for name in names.values()]
    return config
