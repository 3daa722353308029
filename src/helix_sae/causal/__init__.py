"""Which features the model's predictions depend on, found by running the model with them changed.

From the bottom up: :mod:`~helix_sae.causal.alignment` and :mod:`~helix_sae.causal.pairs` say what is compared,
:mod:`~helix_sae.causal.read_out` what is read, :mod:`~helix_sae.causal.effects` and :mod:`~helix_sae.causal.interventions` change
one node or many and run on, :mod:`~helix_sae.causal.acdc`, :mod:`~helix_sae.causal.edges` and
:mod:`~helix_sae.causal.curves` find and judge circuits, :mod:`~helix_sae.causal.inference` and
:mod:`~helix_sae.causal.comparison` say what may be concluded.
"""
