"""The Kedro dataset over the store of codes of every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from helix_sae.datasets.shards import ShardsDataset

if TYPE_CHECKING:
    from helix_sae.codes import CodesPlan, StoredCodes


class TokenCodesDataset(ShardsDataset["CodesPlan", "StoredCodes"]):
    """Codes of every token by site: encoded as they are saved, read by shard and by column.

    Parameters are those of :class:`~helix_sae.datasets.shards.ShardsDataset`.

    Examples
    --------
    ::

        sparse_codes:
          type: helix_sae.datasets.token_codes.TokenCodesDataset
          filepath: data/07_model_output/sparse_codes
          versioned: true
    """

    format_name: ClassVar[str] = "helix-sae-codes/1"

    def _open(self, folder: str) -> StoredCodes:
        from helix_sae.codes import open_codes  # noqa: PLC0415 - slow to import, and catalogs are read by every command

        return open_codes(self._url, folder, self._storage_options, self._verify)

    def _store(self, data: CodesPlan, folder: str) -> None:
        from helix_sae.codes import save_codes  # noqa: PLC0415

        save_codes(data, self._url, folder, self._storage_options)
