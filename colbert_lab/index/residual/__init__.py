"""The index of ColBERTv2: centroids with residual codes, searched in PLAID's manner."""
