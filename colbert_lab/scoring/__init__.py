"""The mathematics of late interaction: MaxSim, and the slow reference it must equal."""
