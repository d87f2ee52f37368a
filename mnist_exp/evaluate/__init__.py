"""What one network says: its answers, and the pictures that it is asked about."""
