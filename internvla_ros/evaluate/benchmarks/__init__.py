"""Published grounding benchmarks as they lie on the disk, read one entry at a time."""
