"""Usage made into money."""
