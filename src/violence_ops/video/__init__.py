"""Videos: checking, decoding and writing them."""
