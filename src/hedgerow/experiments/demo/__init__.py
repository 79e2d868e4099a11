"""The demo: Atari clips recorded, a small model trained on them, and what it learnt."""
