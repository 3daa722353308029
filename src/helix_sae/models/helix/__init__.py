"""The faithful Helix-mRNA: loading, mending, sites, capture and resume."""
