"""What a run or a sweep leaves on disk: whole or absent, and who holds it."""
