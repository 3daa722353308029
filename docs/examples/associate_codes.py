"""Associate pooled codes, a row a sequence, with a table of properties: found on some families, confirmed on others."""

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from helix_sae.statistics.associate import associate
from helix_sae.statistics.splits import split_by_cluster

rng = np.random.default_rng(0)
codes = rng.random((600, 20)) * (rng.random((600, 20)) < 0.3)  # in place of codes: 600 sequences, 20 features
table = pd.DataFrame(
    {
        "sequence_id": [f"s{i}" for i in range(600)],
        "cluster": np.arange(600) // 3,  # relatives stay on one side of the split
        "source": "mine",
        "structural_gc_content": rng.random(600),
        "structural_length": rng.integers(50, 100, 600).astype(float),
        "functional_half_life": codes[:, 7] + 0.3 * rng.normal(size=600),  # feature 7 goes along with it
    }
)

split = split_by_cluster(table["cluster"], {"discovery": 0.7, "validation": 0.3}, seed=0)
found = associate({"my.site": csr_array(codes)}, table, split, properties=["functional_half_life"])
columns = ["site", "feature", "property", "effect", "validation_effect", "replicated"]
print(found.significant[columns].to_string(index=False))
