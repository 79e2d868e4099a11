"""Models that run on packed rows: modules of `transformers` with the attention of `hedgerow.attention`."""
