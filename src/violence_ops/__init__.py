"""Violence detection in CCTV video as a pipeline: from nightly clips to a released classifier."""

__version__ = "0.1.0"
