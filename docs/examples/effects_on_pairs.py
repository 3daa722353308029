"""Effects of features on pairs: which ones make the model predict another ribosome load for the target."""

import pandas as pd

from helix_sae import Experiment, load_helix
from helix_sae.causal import Probe, align_table
from helix_sae.sae import load_sae

model, site = load_helix("data/06_models/helix_mini"), "layers.4.mixer"
mrl = Probe.of_head("functional_mrl", model.head.weight[0], model.head.bias[0])
pairs = pd.read_csv("my_pairs.csv")  # source_sequence, target_sequence; of each its cds_start and cds_end
exp = Experiment(model, {site: load_sae(f"my_saes/{site}")}, mrl, align_table(pairs))
effects = pd.DataFrame(exp.effects("exact").values[site])  # a row a pair, a column a feature; last, the error
print(effects.loc[:, effects.abs().mean().nlargest(5).index].to_string(float_format="{:.6f}".format))
