"""Train a sparse autoencoder on activations of your own, from any model: an array with one row a token."""

import numpy as np

from helix_sae.sae import ArrayBatches, TopKConfig, save_sae, train_saes

rng = np.random.default_rng(0)
directions = rng.normal(size=(64, 32))  # in place of activations: 3 of 64 directions at a time
strengths = rng.random((20_000, 64)) * (rng.random((20_000, 64)) < 3 / 64)
activations = (strengths @ directions).astype(np.float32)

train = ArrayBatches({"my.site": activations[:18_000]}, batch_size=500, seed=0, epochs=40)
holdout = ArrayBatches({"my.site": activations[18_000:]}, batch_size=1_000)
result = train_saes(train, {"topk": TopKConfig(k=6, expansion_factor=2)}, holdout=holdout)

for key, sae in result.saes.items():
    measured = result.evaluations[key].summary
    print(f"{key.site}: explained variance {measured['explained_variance']:.3f}, L0 {measured['l0']:.1f}")
    save_sae(sae, f"my_saes/{key.config}")  # SAELens's layout
