"""Every table and figure of the documents, made from the results that are committed with them."""
