"""Other people's reinforcement learning: a Gymnasium view of a game, and Stable-Baselines3 (extra `rl`)."""
