"""What has to be encoded: a light, picklable description that a pure node can return."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from jaxtyping import Bool, Float

from helix_sae.activations import Activations, Part
from helix_sae.activations.activations import PartWork
from helix_sae.codes.shards import FORMAT
from helix_sae.errors import DataError
from helix_sae.sae.autoencoder import SparseAutoencoder
from helix_sae.sae.codes import TokenCodes, encode_stream


@dataclass(frozen=True)
class CodesPlan:
    """Activations to encode, and the autoencoders that do it; nothing of it is computed yet.

    Attributes
    ----------
    activations : Activations
        Of every token. Those that are computed when they are read are computed once, for all sites together.
    saes : mapping of site to SparseAutoencoder

    Raises
    ------
    DataError
        If the activations are a sample of the tokens.
    """

    activations: Activations
    saes: Mapping[str, SparseAutoencoder]

    def __post_init__(self) -> None:
        if not self.activations.are_whole:
            raise DataError(
                f"{self.activations.source.name}: these activations are a sample of the tokens of each"
                " sequence; codes are made of all of them. Give activations that are computed when they are"
                " read (stream_activations)."
            )

    def works(self) -> list[CodesWork]:
        """The pieces of work, in the order of the sequences."""
        digests = {site: digest_of_sae(sae) for site, sae in self.saes.items()}
        return [CodesWork(_key(part.key, digests), part) for part in self.activations.works()]

    def in_memory(self) -> dict[str, TokenCodes]:
        """The codes of all tokens at once, by site: for data that fit, and the plain twin of what is stored."""
        return {
            site: encode_stream(sae, self.activations.sequences(site), site=site)
            for site, sae in self.saes.items()
        }


@dataclass(frozen=True)
class CodesWork:
    """One shard of codes that has to be made.

    Attributes
    ----------
    key : str
        SHA-256 of everything that the shard's content depends on.
    part : PartWork
        The activations.
    """

    key: str
    part: PartWork


def digest_of_sae(sae: SparseAutoencoder) -> str:
    """SHA-256 of all that an autoencoder's codes depend on: its configuration and its weights."""
    digest = sha256(f"{type(sae).__name__}{sae.config.model_dump_json()}".encode())
    for name, value in sorted(sae.named_parameters()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()


def encode_part(part: Part, saes: Mapping[str, SparseAutoencoder]) -> dict[str, TokenCodes]:
    """Codes of the sequences of one part at every site."""

    def sequences(site: str) -> Iterator[tuple[str, Float[np.ndarray, "t d"], Bool[np.ndarray, " t"]]]:
        for i, name in enumerate(part.sequence_ids):
            rows = slice(int(part.offsets[i]), int(part.offsets[i + 1]))
            yield name, part.activations[site][rows], part.rows.is_nucleotide[rows]

    return {site: encode_stream(sae, sequences(site), site=site) for site, sae in saes.items()}


def _key(of_activations: str, digests: Mapping[str, str]) -> str:
    content = [FORMAT, of_activations, sorted(digests.items())]
    return sha256(json.dumps(content).encode()).hexdigest()
