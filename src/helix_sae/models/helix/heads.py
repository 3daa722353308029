"""The linear read-outs that are kept beside a checkpoint, in its folder, where helical ignores them.

``heads.safetensors`` and ``heads.json``: the tensors, and the phenotypes' names, of a model that was
pretrained here. ``fine_tuned_head.safetensors`` and ``fine_tuned_head.json``: a head that was trained with
helical (:mod:`helix_sae.models.helix.finetuned`).
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helix_sae.errors import ModelError
from helix_sae.models.contract import Head
from helix_sae.temporary import whole_file

WEIGHTS_NAME = "heads.safetensors"
DESCRIPTION_NAME = "heads.json"
HEAD_WEIGHTS, HEAD_DESCRIPTION = "fine_tuned_head.safetensors", "fine_tuned_head.json"


class Heads(nn.Module):
    """Next token from each last hidden state; phenotypes from the mean-pooled embedding.

    Parameters
    ----------
    hidden_size, vocabulary_size : int
    phenotypes : tuple of str
        Names of the properties, e.g. ``functional_mrl``, in the order of the head's outputs.
    """

    def __init__(self, hidden_size: int, vocabulary_size: int, phenotypes: tuple[str, ...]) -> None:
        super().__init__()
        self.phenotypes = phenotypes
        self.next_token = nn.Linear(hidden_size, vocabulary_size, bias=False)
        self.phenotype = nn.Linear(hidden_size, len(phenotypes))
        self.register_buffer("phenotype_mean", torch.zeros(len(phenotypes)))
        self.register_buffer("phenotype_scale", torch.ones(len(phenotypes)))
        self.phenotype_mean: Tensor
        self.phenotype_scale: Tensor

    def logits(self, hidden: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch vocabulary"]:
        """Scores of the next token."""
        return self.next_token(hidden.to(self.next_token.weight.dtype))

    def standardised(self, pooled: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch phenotypes"]:
        """Phenotypes in units of their standard deviation over the training set."""
        return self.phenotype(pooled.to(self.phenotype.weight.dtype))

    def predict(self, pooled: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch phenotypes"]:
        """Phenotypes in their own units."""
        return self.standardised(pooled) * self.phenotype_scale + self.phenotype_mean

    def as_head(self) -> Head:
        """The phenotypes' read-out in their own units, in float64."""
        scale, mean = self.phenotype_scale.double(), self.phenotype_mean.double()
        weight = self.phenotype.weight.detach().double() * scale[:, None]
        bias = self.phenotype.bias.detach().double() * scale + mean
        return Head("regression", self.phenotypes, weight.cpu(), bias.cpu())


def save_heads(heads: Heads, directory: Path) -> None:
    """Write the heads into a checkpoint's folder."""
    with whole_file(directory / WEIGHTS_NAME) as file:
        save_file({k: v.detach().cpu().contiguous() for k, v in heads.state_dict().items()}, file)
    description = {"phenotypes": list(heads.phenotypes)}
    (directory / DESCRIPTION_NAME).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_heads(directory: Path) -> Heads | None:
    """Read the heads beside a checkpoint; None when it has none.

    Raises
    ------
    ModelError
        If they are there and cannot be read.
    """
    weights, description = directory / WEIGHTS_NAME, directory / DESCRIPTION_NAME
    if not weights.exists():
        return None
    try:
        tensors = load_file(weights)
        phenotypes = tuple(str(p) for p in json.loads(description.read_text(encoding="utf-8"))["phenotypes"])
        vocabulary, hidden = tensors["next_token.weight"].shape
        heads = Heads(hidden, vocabulary, phenotypes)
        heads.load_state_dict(tensors)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The heads beside the checkpoint in {directory} cannot be read ({error}); "
            f"restore {WEIGHTS_NAME} and {DESCRIPTION_NAME}, or remove both."
        ) from error
    return heads.eval().requires_grad_(False)


def load_fine_tuned_head(directory: Path) -> Head | None:
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
        head = Head(
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
