"""Parameters of the causal pipeline."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from helix_sae.mrna.columns import property_name

Baseline = Literal["neurons", "pca", "pca_rectified", "ica", "random_directions", "random_sae"]
"""Those of :data:`helix_sae.causal.baselines.BASELINES`, which is too heavy to import here; a test compares them."""


NO_TARGET = "functional_label"
"""The target where none was named: no file has it, and the causal part is left out."""


class ProbeParameters(BaseModel):
    """The read-out whose changes are measured.

    Attributes
    ----------
    kind : {"ridge", "logistic", "mlp", "head"}
        ``head`` is the model's own (:attr:`helix_sae.models.contract.Model.head`).
    positive_class : str, optional
        For a target that is a category: the class whose log odds are explained (``logistic``, or a fine-tuned
        classifier).
    floor : float
        Held-out R2 (or AUC) below which the pipeline stops.
    override_floor : bool
        Go on all the same; the report says so.
    max_extra : int, optional
        Use at most that many of the further labelled records that ``probe_sequences`` names (see
        ``globals.yml``), drawn at random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["ridge", "logistic", "mlp", "head"] = "ridge"
    positive_class: str | None = None
    floor: float = Field(0.3, le=1)
    override_floor: bool = False
    max_extra: int | None = Field(None, ge=1)


class PairParameters(BaseModel):
    """Which pairs of sequences are compared.

    Attributes
    ----------
    source : {"designed", "edited", "natural", "named"}
        ``designed``: the counterfactual table of the demo, shams among it. ``edited``: edits of the sequences
        at hand, with the difference that the simulator's mechanism expects. ``natural``: near neighbours by
        edit distance. ``named``: each record and the one that its ``parent`` column names, e.g. variant and
        wild type.
    num_sequence_pairs : int, optional
        Largest number of pairs, drawn at random.
    min_target_diff : float
        Smallest absolute difference of the target property.
    max_length_ratio : float
        Longer over shorter sequence.
    max_edit_distance : int
        Largest Levenshtein distance of a ``natural`` pair.
    min_reads : float, optional
        Smallest sequencing depth of either side (column ``reads``).
    parent : str
        Column with the ``sequence_id`` of the other side of a named pair.
    edits_per_kind : int
        Edits of each kind that ``edited`` draws, each with a sham.
    kinds : list of str, optional
        Designed pairs: only these kinds of edit.
    motifs : dict of str
        ``edited`` only: name -> IUPAC pattern of motifs to knock out; the kind of such an edit is
        ``motif_<name>``.
    max_length : int, optional
        Longest sequence that takes part, in nucleotides, in the probe as in the pairs; the time of an
        intervention grows with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["designed", "edited", "natural", "named"] = "natural"
    num_sequence_pairs: int | None = Field(100, ge=2)
    min_target_diff: float = Field(0.0, ge=0)
    max_length_ratio: float = Field(1.2, ge=1)
    max_edit_distance: int = Field(10, ge=1)
    min_reads: float | None = Field(None, ge=0)
    parent: str = "mother"
    edits_per_kind: int = Field(40, ge=1)
    kinds: list[str] | None = Field(None, min_length=1)
    motifs: dict[str, str] = Field(default_factory=dict)
    max_length: int | None = Field(None, ge=10)


class EffectParameters(BaseModel):
    """How single-node effects are measured.

    Attributes
    ----------
    exact_top : int, optional
        Run exactly only that many features of each site, of largest estimated effect (a screening, and
        labelled so); all that differ when not given.
    direction : {"source_to_target", "target_to_source"}
        Which of the two sequences of a pair is run, with activations of the other.
    positions : {"nucleotides", "tokens", "edited"}
        Which tokens a patch touches.
    ig_steps : int
        Midpoints of the path of integrated gradients.
    checked_pairs : int
        Discovery pairs on which exact effects are also measured from the patched side and in the other
        direction, to say how far the estimators and the direction can be trusted.
    checked_top : int, optional
        Features of each site, of largest estimated effect, that are measured there; all that differ when not
        given.
    tested_top : int
        Features chosen on discovery families and tested on held-out ones.
    q : float
        False discovery rate of that test.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    exact_top: int | None = Field(64, ge=1)
    direction: Literal["source_to_target", "target_to_source"] = "source_to_target"
    positions: Literal["nucleotides", "tokens", "edited"] = "nucleotides"
    ig_steps: int = Field(8, ge=1)
    checked_pairs: int = Field(16, ge=2)
    checked_top: int | None = Field(128, ge=1)
    tested_top: int = Field(40, ge=1)
    q: float = Field(0.05, gt=0, lt=1)


class AcdcParameters(BaseModel):
    """The search for a circuit.

    Attributes
    ----------
    taus : list of float
        Thresholds of the divergence, ascending.
    n_random_orders : int
        Further runs in random order.
    screening : {"none", "halving"}
        ``halving`` removes groups at a time, and is labelled so.
    max_pairs : int
        Discovery pairs that the search runs on.
    start_top : int, optional
        Features of largest attribution at each site that the search starts from (a screening, and labelled
        so); all of them when not given.
    drawn_nodes : int
        The circuit that is drawn and whose edges are measured is the largest one of the sweep with at most
        that many nodes.
    verified_edges : int
        Edges of largest estimate that are also measured exactly.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    taus: list[float] = Field(min_length=1)
    n_random_orders: int = Field(3, ge=0)
    screening: Literal["none", "halving"] = "halving"
    max_pairs: int = Field(16, ge=2)
    start_top: int | None = Field(None, ge=1)
    drawn_nodes: int = Field(40, ge=2)
    verified_edges: int = Field(20, ge=0)


class CurveParameters(BaseModel):
    """Cumulative interventions and what they are compared with.

    Attributes
    ----------
    n_resamples : int
        Of the cluster bootstrap behind every interval.
    baselines : list of str
        Dictionaries put through the same machinery.
    max_pairs : int
        Pairs of each part: nodes are ranked on discovery ones, curves and circuits judged on held-out ones.
    ranked_top : int
        Features of each site, chosen by the gradient estimate, whose exact effects rank a dictionary: the
        selection budget, the same for all.
    mask_steps : int
        Steps in which masks over the features are learnt; each runs the pairs forwards and backwards once.
    das_rank, das_steps : int
        Supervised subspace (the ceiling): directions of each site, and steps of its training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_resamples: int = Field(2000, ge=2000)
    baselines: list[Baseline] = Field(default_factory=lambda: [*get_args(Baseline)])
    max_pairs: int = Field(60, ge=2)
    ranked_top: int = Field(24, ge=1)
    mask_steps: int = Field(24, ge=1)
    das_rank: int = Field(8, ge=1)
    das_steps: int = Field(40, ge=1)


class CauseParameters(BaseModel):
    """Which feature carries which cause.

    Attributes
    ----------
    edits_per_kind : int
        Edits of each kind that are made of sequences of validation families, each with its sham. Natural and
        named pairs are taken as they are, by what they change.
    kinds : list of str
        Kinds of edit (:func:`helix_sae.causal.edits.design_pairs`), decoys among them.
    screened : int
        Features of largest exact effect on discovery pairs that each kind brings along into the test.
    q : float
        False discovery rate over all features and causes together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    edits_per_kind: int = Field(24, ge=2)
    kinds: list[str] = Field(
        [
            "uaug_make",
            "uaug_break",
            "uaug_shift_frame",
            "uorf_give_stop",
            "uaug_kozak_minus3",
            "main_kozak_minus3",
            "cpg_transposition",
            "pentamer_break",
        ],
        min_length=1,
    )
    screened: int = Field(3, ge=1)
    q: float = Field(0.05, gt=0, lt=1)


class CausalParameters(BaseModel):
    """The causal question and how it is put.

    Attributes
    ----------
    target : str
        The property whose prediction is explained: a column of the mRNA table, or of the file under its own
        name (``te`` is ``functional_te``).
    target_blocks : list of int, optional
        Blocks of the model to intervene on; all that have an autoencoder when not given.
    certified_only : bool
        Whether only certified features are nodes; what the others reconstruct belongs to the error node of
        their site.
    probe, pairs, effects, acdc, curves, causes
        See the classes.
    token_budget : int
        Tokens in one pass; changes the speed, not the result. A GPU wants some ten times as many.
    seed : int
        Of the pairs that are drawn, the read-out and the resamples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str
    target_blocks: list[int] | None = Field(None, min_length=1)
    certified_only: bool = False
    probe: ProbeParameters
    pairs: PairParameters
    effects: EffectParameters
    acdc: AcdcParameters
    curves: CurveParameters
    causes: CauseParameters = CauseParameters.model_validate({})
    token_budget: int = Field(2048, ge=64)
    seed: int = Field(0, ge=0)

    @field_validator("target")
    @classmethod
    def _named_as_the_table_has_it(cls, value: str) -> str:
        return property_name(value)
