"""Kedro's side of the project: nodes and wiring, no mathematics.

Each package holds ``nodes.py``, ``pipeline.py`` and exports ``create_pipeline``; its catalog and parameters
are in ``conf/base/<package>/``. Heavy libraries are imported inside the nodes, so that listing pipelines
stays quick.
"""
