"""`python -m violence_ops.cli`, the same as `violence-ops`."""

from violence_ops.cli import main

main()
