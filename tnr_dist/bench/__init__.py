"""`tnr bench NAME`: each compares the best forms of both sides in one run."""
