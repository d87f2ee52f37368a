"""Processes of this machine that run the jobs of a sweep."""
