"""Let the API reference show our docstrings' examples as code."""

import re
from typing import Any

import griffe


class ExamplesAsCode(griffe.Extension):
    """Read the heading `Example:` as the section that griffe calls `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
