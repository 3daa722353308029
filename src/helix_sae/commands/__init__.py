"""The commands of ``helix-sae``: the pipelines for people who do not know Kedro."""
