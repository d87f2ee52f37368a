"""Training: the loop, what it trains, and how fast the learning rate falls."""
