"""Which code runs: every batch and model says it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
from functools import cache
from pathlib import Path

from violence_ops.deployment import Deployment


def code_revision() -> str:
    """What the code is: `$VIOLENCE_OPS_CODE_REVISION` (an image's), else the commit of the project's checkout, with `-dirty` if
    files differ from it, else the package's version with a hash of its sources."""
    if given := Deployment.from_environment().code_revision:
        return given
    here = Path(__file__).resolve()
    found = subprocess.run(
        ["git", "-C", str(here.parent), "ls-files", "--error-unmatch", here.name], capture_output=True, check=False
    )
    if found.returncode:
        return f"violence-ops {importlib.metadata.version('violence-ops')} sha256:{_sources_sha256(here.parent)}"
    described = ["git", "-C", str(here.parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(described, capture_output=True, text=True, check=True).stdout.strip()


@cache
def _sources_sha256(package: Path) -> str:
    """One SHA-256 over the names and bytes of the package's programs and default parameters, 16 hex digits of it."""
    digest = hashlib.sha256()
    for path in sorted(one for kind in ("*.py", "*.yaml") for one in package.rglob(kind)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(package)} {content}\n".encode())
    return digest.hexdigest()[:16]
