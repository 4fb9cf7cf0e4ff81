"""Networks in OpenVINO come and go without harm to the process that holds them."""

import subprocess
import sys

import pytest

SCRIPT = """
import faulthandler, gc, signal, subprocess
faulthandler.enable()
signal.signal(signal.SIGCHLD, lambda *_: None)
import numpy as np
from violence_ops.pose.rtmo import PoseEstimator
thresholds = {"score_threshold": 0.3, "nms_threshold": 0.35, "duplicate_distance": 0.0}
first, second = (PoseEstimator("rtmo_small", backend="openvino", **thresholds) for _ in range(2))
for one in (first, second):
    one.estimate([np.zeros((90, 160, 3), np.uint8)])
del first, one
gc.collect()
del second
gc.collect()
subprocess.run(["true"], check=True)
print("alive")
"""


@pytest.mark.slow
def test_a_signal_after_the_networks_are_gone_does_not_kill_the_process() -> None:
    """A child's end is a signal; its handler runs on the stack that OpenVINO's plugin puts in place."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
