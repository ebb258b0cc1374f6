"""Results in; tables, figures and one HTML file out: neither torch nor tasks nor pruners."""
