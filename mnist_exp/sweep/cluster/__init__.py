"""Schedulers of other machines that run the jobs of a sweep."""
