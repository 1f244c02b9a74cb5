"""Worked games that are not in the paper, one a file."""
