"""Models that a user fine-tuned with helical: their weights, their head, and the model read as the head reads it.

A ``HelixmRNAFineTuningModel`` writes one file with ``save_model``. :func:`import_fine_tuned` turns it into a
checkpoint: the fine-tuned backbone in the layout that everything here loads, and the head beside it as
``fine_tuned_head.safetensors`` and ``fine_tuned_head.json``. A head was trained on the activations that
helical computes, which this package corrects (:mod:`helix_sae.models.helix.mending`): whether it still
predicts is measured before anything is concluded from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from helix_sae.errors import ModelError
from helix_sae.models.contract import Edit, Model, StillTokens, widened
from helix_sae.models.helix.heads import HEAD_DESCRIPTION, HEAD_WEIGHTS
from helix_sae.models.suffix import PrefixStates
from helix_sae.mrna.tokens import PAD_ID
from helix_sae.temporary import whole_file

_BACKBONE, _HEAD = "model.", "fine_tuning_head."
_COPIED = ("config.json", "tokenizer_config.json")

Task = Literal["regression", "classification"]


def import_fine_tuned(
    weights: str | Path, base: str | Path, directory: str | Path, *, task: Task, outputs: Sequence[str]
) -> Path:
    """Make a checkpoint of what ``HelixmRNAFineTuningModel.save_model`` wrote.

    Parameters
    ----------
    weights : str or Path
        That file, or the same state dict as ``.safetensors``. A file of ``save_model`` is opened with torch's
        restricted reader, which builds tensors only and can run nothing; a whole pickled model (helical
        before 2.1) is refused.
    base : str or Path
        Directory of the checkpoint that was fine-tuned, for its ``config.json``.
    directory : str or Path
        Where to write; name it as ``filepath`` of ``model`` in the catalog.
    task : {"regression", "classification"}
        Which head it has.
    outputs : sequence of str
        A property (column of the mRNA table) for each output of a regression; a name for each class.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    ModelError
        If the file cannot be read safely, lacks the backbone or the head, or does not fit ``outputs``.
    """
    state = _state_dict(Path(weights))
    backbone = {n.removeprefix(_BACKBONE): t for n, t in state.items() if n.startswith(_BACKBONE)}
    linear = {n.removeprefix(_HEAD + "linear."): t for n, t in state.items() if n.startswith(_HEAD)}
    if not backbone or set(linear) != {"weight", "bias"}:
        raise ModelError(
            f"{weights} does not hold a fine-tuned model: expected tensors {_BACKBONE}* and"
            f" {_HEAD}linear.weight and .bias, found {', '.join(sorted(state)[:4]) or 'none'} ... Save it"
            " with helical's save_model."
        )
    if len(linear["bias"]) != len(outputs):
        raise ModelError(
            f"The head in {weights} has {len(linear['bias'])} outputs, but {len(outputs)} were named "
            f"({', '.join(outputs)}); name each of them."
        )
    source, target = Path(base), Path(directory)
    if not (source / "config.json").is_file():
        raise ModelError(f"{source} is not a checkpoint: it has no config.json.")
    target.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    with whole_file(target / "model.safetensors") as file:
        save_file({n: t.contiguous() for n, t in backbone.items()}, file, {"format": "pt"})
    with whole_file(target / HEAD_WEIGHTS) as file:
        save_file({n: t.contiguous() for n, t in linear.items()}, file)
    description = {"task": task, "outputs": list(outputs)}
    (target / HEAD_DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return target


def _state_dict(path: Path) -> dict[str, Tensor]:
    """Named tensors of a file, by readers that cannot run code."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # both readers raise a dozen kinds, those of Python's own unpickling among them
        raise ModelError(
            f"{path} cannot be read as weights alone ({type(error).__name__}). Give the file that helical's"
            " save_model wrote, or its state dict as safetensors; a whole pickled model can run code and is"
            " never opened."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ModelError(f"{path} holds something else than named tensors; save the model with save_model.")
    return {str(name): tensor for name, tensor in state.items()}


class SeparatedPrefix(NamedTuple):
    """:class:`~helix_sae.models.suffix.PrefixStates` of a pass with ``[SEP]``, and that pass."""

    inner: PrefixStates
    cache: Any

    @property
    def start(self) -> int:
        """Number of tokens before the suffix."""
        return self.inner.start

    def rows(self, index: Int[Tensor, " n"]) -> SeparatedPrefix:
        """The states of some sequences of the batch, repeats allowed."""
        return self._replace(inner=self.inner.rows(index))


class FineTunedModel(Model):
    """A Helix-mRNA as its fine-tuned head reads it, with the sites of the model without it.

    helical closes each sequence with ``[SEP]`` and gives the head two vectors: the state of the second to
    last nucleotide, and the sum of the states from the second token to ``[SEP]`` divided by the number of
    nucleotides and markers less two. (So it is for a sequence that is not padded; beside longer ones helical
    pads on the left and both shift by one token.) The closing token is added here behind what callers see:
    activations, edits and patches cover the sequence alone.

    Parameters
    ----------
    inner : Model
        A :class:`~helix_sae.models.helix.model.HelixModel`.
    """

    markers = ("cds", "none")

    def __init__(self, inner: Model) -> None:
        super().__init__(
            inner.module,
            inner.site_names,
            default_sites=inner.default_sites,
            fingerprint=inner.fingerprint,
        )
        self.inner = inner
        self.head = inner.head

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.inner.hidden_size

    @property
    def embedding_size(self) -> int:
        """Two vectors of the width of the residual stream."""
        return 2 * self.hidden_size

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch closed hidden"]:
        """Last hidden states, that of ``[SEP]`` last."""
        return self.inner.forward(_closed(ids))

    def edited(self, edits: Mapping[str, Edit]) -> AbstractContextManager[None]:
        """Edits that ``[SEP]`` is out of reach of."""
        return self.inner.edited(_within(edits))

    def capture(
        self, ids: Int[Tensor, "batch time"], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch time hidden"]]:
        """Activations at several sites, without that of ``[SEP]``."""
        return {site: x[:, :-1] for site, x in self.inner.capture(_closed(ids), sites).items()}

    def cache(self, ids: Int[Tensor, "batch time"]) -> Any:
        """The cache of a pass with ``[SEP]``."""
        return self.inner.cache(_closed(ids))

    def at_site(self, site: str, cache: Any) -> Float[Tensor, "batch time hidden"]:
        """The activation at a site, without that of ``[SEP]``."""
        return self.inner.at_site(site, cache)[:, :-1]

    def resume(
        self,
        site: str,
        value: Float[Tensor, "batch time hidden"],
        cache: Any,
        hooks: Mapping[str, Edit] | None = None,
    ) -> Float[Tensor, "batch closed hidden"]:
        """Run on from a site, at which ``[SEP]`` has its cached activation."""
        end = self.inner.at_site(site, cache)[:, -1:]
        return self.inner.resume(site, torch.cat([value, end], dim=1), cache, _within(hooks or {}))

    def prefix_states(self, cache: Any, start: int) -> SeparatedPrefix:
        """What the tokens before ``start`` hand on."""
        return SeparatedPrefix(self.inner.prefix_states(cache, start), cache)

    def resume_suffix(
        self,
        site: str,
        value: Float[Tensor, "n suffix hidden"],
        prefix: SeparatedPrefix,
        hooks: Mapping[str, Edit] | None = None,
        changed: Bool[Tensor, "n suffix"] | None = None,
        still: StillTokens | None = None,
    ) -> Float[Tensor, "n closed_suffix hidden"]:
        """Run on from a site over a suffix; the closing token is as it was."""
        end = prefix.inner.pick(self.inner.at_site(site, prefix.cache)[:, -1:])
        if changed is not None:
            changed = torch.nn.functional.pad(changed, (0, 1))
        closed = torch.cat([value, end], dim=1)
        return self.inner.resume_suffix(site, closed, prefix.inner, _within(hooks or {}), changed, still)

    def pool(
        self, hidden: Float[Tensor, "batch closed hidden"], is_nucleotide: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch width"]:
        """The two vectors that the head reads, side by side, in at least float32.

        Raises
        ------
        ModelError
            If a sequence has fewer than three tokens.
        """
        hidden = widened(hidden)
        place = torch.arange(hidden.shape[1], device=hidden.device)
        closing = torch.where(is_nucleotide, place[:-1], -1).amax(1) + 1
        if int(closing.min()) < 3:
            raise ModelError(
                "A fine-tuned head reads sequences of at least three tokens; leave shorter ones out."
            )
        weights = ((place >= 1) & (place <= closing[:, None])).to(hidden.dtype) / (closing[:, None] - 2)
        mean = torch.einsum("bt,bth->bh", weights, hidden)
        return torch.cat([hidden[torch.arange(len(hidden), device=hidden.device), closing - 2], mean], dim=1)

    def pool_suffix(
        self,
        hidden: Float[Tensor, "n closed_suffix hidden"],
        prefix: SeparatedPrefix,
        is_nucleotide: Bool[Tensor, "batch time"],
    ) -> Float[Tensor, "n width"]:
        """:meth:`pool` of whole sequences from a resumed suffix."""
        before = prefix.inner.pick(prefix.inner.hidden)
        return self.pool(torch.cat([before, hidden], dim=1), prefix.inner.pick(is_nucleotide))


def _closed(ids: Int[Tensor, "batch time"]) -> Int[Tensor, "batch closed"]:
    """A closing token after each sequence: padding has the id of ``[SEP]``, and the model is causal."""
    return torch.nn.functional.pad(ids, (0, 1), value=PAD_ID)


def _within(edits: Mapping[str, Edit]) -> dict[str, Edit]:
    """Edits that leave the last column alone."""

    def keep_end(edit: Edit) -> Edit:
        return lambda x: torch.cat([edit(x[:, :-1]), x[:, -1:]], dim=1)

    return {site: keep_end(edit) for site, edit in edits.items()}
