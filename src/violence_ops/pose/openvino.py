"""The process's one OpenVINO, and what it can do on this processor."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def core() -> Any:
    """OpenVINO's entry, shared and never let go.

    Its CPU plugin replaces the thread's signal stack. When two plugins go in the order in which they came, the one that
    goes last puts back a stack that is no longer there, and the next signal (Ctrl-C, a child's end) kills the process.
    """
    import openvino

    return openvino.Core()


@cache
def computes_bf16() -> bool:
    """Whether this processor has instructions for bf16, so that networks in it are faster than in fp32."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
