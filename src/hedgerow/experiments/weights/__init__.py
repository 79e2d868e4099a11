"""What loss weights do: the same runs with and without them, and over a range of them."""
