"""The workspace itself: made, started, looked after."""
