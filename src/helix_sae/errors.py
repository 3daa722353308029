"""The errors that users meet.

Every error of this package is a :class:`HelixSaeError`. Its message says what was wrong, where (file, record,
column, site) and what to do about it, so that a traceback is never needed to act on it.
"""

from __future__ import annotations


class HelixSaeError(Exception):
    """Base of every error that this package raises on purpose."""


class DataError(HelixSaeError):
    """An input file, table or record is not what it has to be."""


class ConfigurationError(HelixSaeError):
    """A parameter, or a combination of parameters, cannot be honoured."""


class ModelError(HelixSaeError):
    """A model, checkpoint or head cannot be loaded or does not fit the data."""


class UnknownSiteError(ModelError):
    """A site was named that the model does not have."""


class StoreError(HelixSaeError):
    """A stored artefact is missing, damaged or belongs to something else."""


class AnalysisError(HelixSaeError):
    """A statistic or an experiment cannot be computed from what it was given."""


class MemoryLimitError(HelixSaeError):
    """The machine or its accelerator has less memory than the work asks for."""


class WeakProbeError(AnalysisError):
    """The read-out is too weak for its interventions to be interpreted."""
