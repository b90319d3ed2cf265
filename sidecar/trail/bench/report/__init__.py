"""What results.json says: terminal tables and one page. `trail bench` and `trail simulate` write it."""
