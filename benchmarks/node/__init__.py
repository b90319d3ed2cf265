"""What TRAIL costs on a real node."""
