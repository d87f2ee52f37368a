"""Comparing runs: a leaderboard for the terminal, pictures, and one page that holds everything."""
