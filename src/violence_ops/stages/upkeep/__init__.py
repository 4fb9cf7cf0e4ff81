"""The workspace itself: made, started, looked after; and synthetic clips to try it with."""
