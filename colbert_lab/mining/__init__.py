"""Mining: from a run to training examples: candidates, a teacher's scores, pools, draws."""
