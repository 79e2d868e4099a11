"""Models that run on packed rows: built from `transformers` modules, with attention from `hedgerow.attention`."""
