"""Tables: schemas, columns and rows of X, and targets y, read without torch."""
