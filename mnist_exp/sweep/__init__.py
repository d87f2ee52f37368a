"""Many runs: what they are (grid), who runs them (local launcher, workers), and what is on the screen."""
