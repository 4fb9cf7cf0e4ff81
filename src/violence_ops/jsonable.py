"""What the results of stages have in common."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast


class Jsonable:
    """A dataclass of plain values that can be shown as JSON."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Its fields as JSON-able values."""
        return asdict(cast(Any, self))
