"""Models that a user fine-tuned with helical: their weights, their head, and the model read as the head reads it.

A ``HelixmRNAFineTuningModel`` writes one file with ``save_model``. :func:`import_fine_tuned` turns it into a checkpoint: the
fine-tuned backbone in the layout that everything here loads, and the head beside it as ``fine_tuned_head.safetensors`` and
``fine_tuned_head.json``. A head was trained on the activations that helical computes, which this package corrects
(:mod:`helix_sae.models.helix.mending`): whether it still predicts is measured before anything is concluded from it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from helix_sae.errors import ModelError
from helix_sae.models.batching import DEFAULT_TOKEN_BUDGET
from helix_sae.models.helix.fast.suffix import PrefixStates, StillTokens
from helix_sae.models.helix.model import Edit, HelixModel, ResidualCache
from helix_sae.mrna.tokens import PAD_ID, TokenizedSequence
from helix_sae.temporary import whole_file

HEAD_WEIGHTS, HEAD_DESCRIPTION = "fine_tuned_head.safetensors", "fine_tuned_head.json"

_BACKBONE, _HEAD = "model.", "fine_tuning_head."
_COPIED = ("config.json", "tokenizer_config.json")

Task = Literal["regression", "classification"]


class FineTunedHead(NamedTuple):
    """helical's ``RegressionHead`` or ``ClassificationHead``.

    Attributes
    ----------
    task : {"regression", "classification"}
    outputs : tuple of str
        Properties of a regression, classes of a classification.
    weight : float32 (n_outputs, 2 hidden)
        Over the state of the second to last token and the mean, see :class:`FineTunedModel`.
    bias : float32 (n_outputs,)
    """

    task: Task
    outputs: tuple[str, ...]
    weight: Float[Tensor, "n_outputs width"]
    bias: Float[Tensor, " n_outputs"]


def import_fine_tuned(
    weights: str | Path, base: str | Path, directory: str | Path, *, task: Task, outputs: Sequence[str]
) -> Path:
    """Make a checkpoint of what ``HelixmRNAFineTuningModel.save_model`` wrote.

    Parameters
    ----------
    weights : str or Path
        That file, or the same state dict as ``.safetensors``. A file of ``save_model`` is opened with torch's restricted
        reader, which builds tensors only and can run nothing; a whole pickled model (helical before 2.1) is refused.
    base : str or Path
        Directory of the checkpoint that was fine-tuned, for its ``config.json``.
    directory : str or Path
        Where to write; name it as ``filepath`` of ``helix_model`` in the catalog.
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
            f"{weights} does not hold a fine-tuned model: expected tensors {_BACKBONE}* and {_HEAD}linear.weight and "
            f".bias, found {', '.join(sorted(state)[:4]) or 'none'} ... Save it with helical's save_model."
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
            f"{path} cannot be read as weights alone ({type(error).__name__}). Give the file that helical's save_model wrote, "
            "or its state dict as safetensors; a whole pickled model can run code and is never opened."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ModelError(f"{path} holds something else than named tensors; save the model with save_model.")
    return {str(name): tensor for name, tensor in state.items()}


def load_fine_tuned_head(directory: Path) -> FineTunedHead | None:
    """The head beside a checkpoint that :func:`import_fine_tuned` made; None when there is none.

    Raises
    ------
    ModelError
        If it is there and cannot be read.
    """
    weights, description = directory / HEAD_WEIGHTS, directory / HEAD_DESCRIPTION
    if not weights.exists():
        return None
    try:
        tensors, described = load_file(weights), json.loads(description.read_text(encoding="utf-8"))
        head = FineTunedHead(
            described["task"],
            tuple(map(str, described["outputs"])),
            tensors["weight"].float(),
            tensors["bias"].float(),
        )
        fits = head.task in ("regression", "classification") and len(head.outputs) == len(head.bias)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"The fine-tuned head in {directory} cannot be read ({error!r}); run import_fine_tuned again."
        ) from error
    if not fits:
        raise ModelError(f"{description} does not fit {weights.name}; run import_fine_tuned again.")
    return head


class SeparatedPrefix(NamedTuple):
    """:class:`~helix_sae.models.helix.fast.suffix.PrefixStates` of a pass with ``[SEP]``, and that pass."""

    inner: PrefixStates
    cache: ResidualCache

    @property
    def start(self) -> int:
        """Number of tokens before the suffix."""
        return self.inner.start

    def rows(self, index: Int[Tensor, " n"]) -> SeparatedPrefix:
        """The states of some sequences of the batch, repeats allowed."""
        return self._replace(inner=self.inner.rows(index))


class FineTunedModel:
    """A model as its fine-tuned head reads it, with the sites of the model without it.

    helical closes each sequence with ``[SEP]`` and gives the head two vectors: the state of the second to last nucleotide, and
    the sum of the states from the second token to ``[SEP]`` divided by the number of nucleotides and markers less two. (So it is
    for a sequence that is not padded; beside longer ones helical pads on the left and both shift by one token.) The
    closing token is added here behind what callers see: activations, edits and patches cover the sequence alone.

    Parameters
    ----------
    model : HelixModel
    """

    def __init__(self, model: HelixModel) -> None:
        self.inner = model
        self.site_names, self.default_sites = model.site_names, model.default_sites
        self.fingerprint, self.hidden_size, self.n_layers = (
            model.fingerprint,
            model.hidden_size,
            model.n_layers,
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.inner.device

    def check_sites(self, sites: Sequence[str]) -> None:
        """As :meth:`HelixModel.check_sites`."""
        self.inner.check_sites(sites)

    def layer_of(self, site: str) -> int:
        """As :meth:`HelixModel.layer_of`."""
        return self.inner.layer_of(site)

    def edited(self, edits: Mapping[str, Edit]) -> AbstractContextManager[None]:
        """As :meth:`HelixModel.edited`; ``[SEP]`` is out of an edit's reach."""
        return self.inner.edited(_within(edits))

    def capture(
        self, ids: Int[Tensor, "batch time"], sites: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch time hidden"]]:
        """As :meth:`HelixModel.capture`."""
        return {site: x[:, :-1] for site, x in self.inner.capture(_closed(ids), sites).items()}

    def cache(self, ids: Int[Tensor, "batch time"]) -> ResidualCache:
        """As :meth:`HelixModel.cache`, ``[SEP]`` included."""
        return self.inner.cache(_closed(ids))

    def at_site(self, site: str, cache: ResidualCache) -> Float[Tensor, "batch time hidden"]:
        """As :meth:`HelixModel.at_site`."""
        return self.inner.at_site(site, cache)[:, :-1]

    def resume(
        self,
        site: str,
        value: Float[Tensor, "batch time hidden"],
        cache: ResidualCache,
        hooks: Mapping[str, Edit] | None = None,
    ) -> Float[Tensor, "batch closed hidden"]:
        """As :meth:`HelixModel.resume`; ``[SEP]`` has its cached activation at the site."""
        end = self.inner.at_site(site, cache)[:, -1:]
        return self.inner.resume(site, torch.cat([value, end], dim=1), cache, _within(hooks or {}))

    def run(
        self, ids: Int[Tensor, "batch time"], edits: Mapping[str, Edit]
    ) -> Float[Tensor, "batch closed hidden"]:
        """As :meth:`HelixModel.run`, ``[SEP]`` included."""
        return self.inner.run(_closed(ids), _within(edits))

    def prefix_states(self, cache: ResidualCache, start: int) -> SeparatedPrefix:
        """As :meth:`HelixModel.prefix_states`."""
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
        """As :meth:`HelixModel.resume_suffix`; the closing token is as it was."""
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
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
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

    @torch.no_grad()
    def embed(
        self, tokens: Sequence[TokenizedSequence], token_budget: int = DEFAULT_TOKEN_BUDGET
    ) -> Float[np.ndarray, "n width"]:
        """What the head reads of each sequence, in the order of the input."""
        out = np.empty((len(tokens), 2 * self.hidden_size), dtype=np.float32)
        for index in self.inner.batches(tokens, token_budget):
            ids, is_nucleotide = self.inner.tensors([tokens[i] for i in index])
            out[index] = self.pool(self.run(ids, {}), is_nucleotide).cpu().numpy()
        return out


def _closed(ids: Int[Tensor, "batch time"]) -> Int[Tensor, "batch closed"]:
    """A closing token after each sequence: padding has the id of ``[SEP]``, and the model is causal."""
    return torch.nn.functional.pad(ids, (0, 1), value=PAD_ID)


def _within(edits: Mapping[str, Edit]) -> dict[str, Edit]:
    """Edits that leave the last column alone."""

    def keep_end(edit: Edit) -> Edit:
        return lambda x: torch.cat([edit(x[:, :-1]), x[:, -1:]], dim=1)

    return {site: keep_end(edit) for site, edit in edits.items()}
