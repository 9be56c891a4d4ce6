"""Tables: what the user's X and y say, read without torch."""
