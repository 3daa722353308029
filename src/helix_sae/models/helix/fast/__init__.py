"""Fast forms of what Helix-mRNA computes, each held to its definition by a test."""
