"""Results in; tables, figures and one HTML file out."""
