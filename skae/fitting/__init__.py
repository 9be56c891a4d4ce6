"""The steps of fits: of whole tables, and of parts of a stream of rows."""
