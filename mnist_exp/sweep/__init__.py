"""Many runs: as a grid or a search, on this machine or a cluster, from what was typed to the leaderboard."""
