"""Whole jobs: configuration in, results out. Never here: parsing of command lines, printing."""
