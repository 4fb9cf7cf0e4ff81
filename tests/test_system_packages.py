"""`tools/system_packages.sh` on a machine that cannot install anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "tools" / "system_packages.sh"


def test_root_without_a_network_is_told_what_is_skipped_and_goes_on(tmp_path: Path) -> None:
    for name, line in (("id", "echo 0"), ("apt-get", "exit 100")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run(
        [bash, SCRIPT], env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "chromium" in done.stderr
    assert "will be skipped" in done.stderr
