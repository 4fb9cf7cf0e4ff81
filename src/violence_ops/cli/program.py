"""The program with all its verbs."""

# ruff: noqa: F401, I001  (each adds its verbs, in the order of `--help`)
from violence_ops.cli import services, nightly, learning, releasing, sweep, shadow
from violence_ops.cli import weights, clips, annotations, lineage, review
from violence_ops.cli.common import app

__all__ = ["app"]
