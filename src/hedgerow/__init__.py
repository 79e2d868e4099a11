"""Train vision-language models on packed message trees."""
