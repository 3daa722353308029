"""Kedro datasets: the only place with storage formats."""
