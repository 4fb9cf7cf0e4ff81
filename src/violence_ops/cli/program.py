"""The program with all its verbs."""

from violence_ops.cli import services, nightly, models, learning, shadow, clips, annotations, lineage, review  # noqa: F401, I001  (in the order of `--help`)
from violence_ops.cli.common import app

__all__ = ["app"]
