"""One verb a file: each stage makes one artifact of others; the only place that knows Hydra."""
