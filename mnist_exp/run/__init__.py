"""Trains one run, or several as a pack, into their folders."""
