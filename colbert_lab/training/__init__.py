"""LightningModules, the data they see, and what watches them."""
