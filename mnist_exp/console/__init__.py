"""What people see, and how commands begin and end."""
