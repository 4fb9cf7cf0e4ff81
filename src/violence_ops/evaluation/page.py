"""A self-contained HTML page from a template of this package, in the house style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup


def render(name: str, context: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]]) -> str:
    """The template `name` filled in. Every value is escaped: a clip's path and a camera's name are hostile."""
    # the source is the package's own
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= filters
    folder = files(__package__)
    template = environment.from_string(folder.joinpath(name).read_text("utf-8"))
    return template.render(style=Markup(folder.joinpath("style.css").read_text("utf-8")), **context)
