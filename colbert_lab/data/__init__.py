"""Collections and training examples: what a user has on disk, checked once, becomes ids, texts, judgements, tuples."""
