"""Few-shot transfer of latencies: the published tasks, the methods, and how they are compared."""
