"""Reports: one self-contained HTML page each, which opens from disk without a network."""
