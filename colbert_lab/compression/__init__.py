"""Making token embeddings small: centroids, residual codes, pooled tokens."""
