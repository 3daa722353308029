"""Mamba2-mRNA, opened through helical: mended, and diagnosed by behaviour."""
