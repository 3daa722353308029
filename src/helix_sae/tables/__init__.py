"""The schema of tables that cross from one node to another: columns, types, units, bounds and meaning.

A table is checked where its dataset saves it (:class:`helix_sae.datasets.tables.CsvTableDataset`), under the
name of its file. :data:`SCHEMAS` is what a data dictionary is made from.
"""

from helix_sae.tables.autoencoders import AUTOENCODER_TABLES
from helix_sae.tables.interventions import INTERVENTION_TABLES
from helix_sae.tables.properties import PROPERTY_TABLES
from helix_sae.tables.schema import Column, Table

SCHEMAS: dict[str, Table] = {**AUTOENCODER_TABLES, **PROPERTY_TABLES, **INTERVENTION_TABLES}
"""By the name of the table in the catalog."""

__all__ = ["SCHEMAS", "Column", "Table"]
