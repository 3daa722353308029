"""Sequences: records, readers, tokens, annotations, the simulator."""
