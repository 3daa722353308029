"""Sparse codes of a corpus that need not fit into memory: encoded shard by shard, stored, read by shard and by column.

::

    plan = CodesPlan(activations, saes)  # of every token; computed when they are saved
    codes = save_codes(plan, "my_codes")  # the model runs once for all sites
    codes["layers.0.mixer"].columns([466])  # one feature on every token
"""

from helix_sae.codes.plan import CodesPlan
from helix_sae.codes.store import StoredCodes, open_codes
from helix_sae.codes.writing import save_codes

__all__ = ["CodesPlan", "StoredCodes", "open_codes", "save_codes"]
