"""A comparison of systems: what kinds there are, making them, what they cost, and the tables."""
