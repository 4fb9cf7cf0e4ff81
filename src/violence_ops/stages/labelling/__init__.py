"""Labels that people give, and the clips that they are asked about."""
