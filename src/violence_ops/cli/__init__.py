"""The command line: parse, call a stage, print. Results go to stdout, progress and errors to stderr.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused by the gate, or `check` found something; 4 input unusable; 130 interrupted.
"""

from violence_ops.cli import services, nightly, models, learning, shadow, clips, annotations, lineage, review  # noqa: F401, I001  (in the order of `--help`)
from violence_ops.cli.common import app


def main() -> None:
    """Entry point of `violence-ops`."""
    app()
