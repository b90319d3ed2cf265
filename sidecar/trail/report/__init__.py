"""What results are shown with: tables, figures, pages, statistics. Reports elsewhere are content alone."""
