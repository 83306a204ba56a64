"""Put a page for every algorithm of the registry into the menu, so that a new one is not listed by hand."""

from mkdocs.config.defaults import MkDocsConfig

from workhorse.algorithms.registry import entries

SECTION = "Algorithms"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append `algorithms/NAME.md` of each class, by its own name, to the menu's section of algorithms.

    A page that is missing, or not in the menu, is an error of the strict build.
    """
    assert config.nav is not None
    section = next(entry[SECTION] for entry in config.nav if SECTION in entry)
    names: dict[tuple[str, str], str] = {}
    for row in entries().values():
        names.setdefault((row.module, row.cls), row.name)  # its presets, which come after it, share its page
    section += [{name: f"algorithms/{name}.md"} for name in names.values()]
    return config
