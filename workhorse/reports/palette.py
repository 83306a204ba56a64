"""Colours, in light and in dark: each colour of a figure is written as the light one, and the page looks up its twin.

The series stay apart under protanopia, deuteranopia and tritanopia (CIE76 distance of at least 17 in the light theme
and in the dark), and have a contrast of at least 3 to their ground. Wherever colour tells two series apart, a symbol
or a dash does too.
"""

__all__ = ["DARK", "LIGHT", "NUM_SERIES", "css_variables", "dark_twins", "series", "shade", "variant_colours"]

LIGHT = {
    "ground": "#f7f8f9",
    "card": "#ffffff",
    "ink": "#17202b",
    "muted": "#566373",
    "line": "#dfe4ea",
    "grid": "#e9edf1",
    "bad": "#b3261e",
    "series-0": "#1f66b0",
    "series-1": "#d9590a",
    "series-2": "#0b9161",
    "series-3": "#72374a",
    "series-4": "#7232d4",
    "series-5": "#c76b9d",
}
"""Every colour by its name."""

DARK = {
    "ground": "#0f1319",
    "card": "#161c24",
    "ink": "#e8edf3",
    "muted": "#9eabba",
    "line": "#2b343f",
    "grid": "#242c36",
    "bad": "#ff8a80",
    "series-0": "#6cb0f5",
    "series-1": "#ff9d5c",
    "series-2": "#3ddc97",
    "series-3": "#d9566f",
    "series-4": "#a868ff",
    "series-5": "#f5c2e4",
}

NUM_SERIES = sum(name.startswith("series") for name in LIGHT)
_SHADES = (0.14, 0.35)


def series(place: int) -> str:
    """The colour of the series at a place; they come round again."""
    return LIGHT[f"series-{place % NUM_SERIES}"]


def shade(colour: str, opacity: float = _SHADES[0]) -> str:
    """A colour that lets through what is below.

    Example:
        >>> shade("#1f66b0")
        'rgba(31,102,176,0.14)'
    """
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def variant_colours(variants: tuple[str, ...]) -> dict[str, int]:
    """A series for every variant; one for all where there are more variants than colours: then labels tell them."""
    return {variant: place if len(variants) <= NUM_SERIES else 0 for place, variant in enumerate(variants)}


def dark_twins() -> dict[str, str]:
    """Return the dark twin of each colour of a figure."""
    plain = {LIGHT[name]: DARK[name] for name in LIGHT}
    shades = {shade(light, share): shade(dark, share + 0.06) for light, dark in plain.items() for share in _SHADES}
    return plain | shades


def css_variables() -> str:
    """The colours as variables: the system's theme, the reader's choice, and light on paper."""
    light, dark = (" ".join(f"--{name}: {value};" for name, value in theme.items()) for theme in (LIGHT, DARK))
    return (
        f":root {{ color-scheme: light; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ color-scheme: dark; {dark} }} }}\n"
        f":root[data-theme=dark] {{ color-scheme: dark; {dark} }}\n"
        f"@media print {{ :root, :root:not([data-theme=light]), :root[data-theme=dark] "
        f"{{ color-scheme: light; {light} }} }}\n"
    )
