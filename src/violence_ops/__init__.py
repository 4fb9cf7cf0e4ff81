"""Violence detection in CCTV video as a pipeline: from nightly clips to a released classifier."""

import os

__version__ = "0.1.0"

# Before torch is loaded: its waiting threads must not spin. On two busy cores spinning costs ten times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# Before ONNX Runtime is loaded: it would send what it is used for to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
