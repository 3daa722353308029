"""Reports of a run: what was found, in words, tables and figures.

Data in, strings out; knows nothing of Kedro.
"""
