"""Every picture: of one run, of a sweep, of a search, of a network."""
