"""Tables: classes or numbers predicted from the other columns."""
