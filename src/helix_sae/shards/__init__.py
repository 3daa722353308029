"""Stores of shards: content-addressed files that versions share, each version named by a manifest written last.

Activations (:mod:`helix_sae.activations`) and codes (:mod:`helix_sae.codes`) are kept so::

    shards/<ab>/<key>.<sha256>.safetensors       shared by all versions
    <version>/<name>/index.parquet               sequence_id, shard, start, n_tokens
    <version>/<name>/manifest.json               written last: without it there is no version

A rerun makes the shards that are missing; an interrupted run goes on where it was.
"""
