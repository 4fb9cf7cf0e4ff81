"""The command line: parse, call a stage, print. Results go to stdout, progress and errors to stderr.

Exit codes: 0 done; 1 failed, or there is no such thing yet (a champion, a version in shadow); 2 wrong usage; 3 refused by the gate, or
`check` found something; 4 input unusable; 130 interrupted.
"""

import sys


def main() -> None:
    """Entry point of `violence-ops`."""
    try:
        from violence_ops.cli.program import app  # here: what takes its time can be interrupted

        app()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
