"""Commands of the console itself: `demo` and `up`."""
