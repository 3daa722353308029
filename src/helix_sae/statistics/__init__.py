"""Rank tests, partial correlation, multiple testing, splits, bootstrap, concept matching: arrays and tables in and out."""
