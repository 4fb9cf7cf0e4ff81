"""Where data and models come from, and what goes with a clip that is forgotten."""
