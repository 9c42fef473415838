"""Every error a user can meet, each a sentence that says what was wrong and what to do about it."""


class ContransError(Exception):
    """Base of all errors that ConTrans raises on purpose; the command line prints it and exits with 2."""


class ModelError(ContransError):
    """A model reference cannot be resolved, fetched, verified, converted or read."""


class TextError(ContransError):
    """A contrast set, corpus or prompt is empty, one-sided, too long or malformed."""


class CircularityError(TextError):
    """A text that a map is judged by also stands in the corpus that the map is fitted on."""


class StateError(ContransError):
    """Hidden states are missing, not finite or of the wrong shape."""


class BlockError(ContransError):
    """A decoder block was asked for that the model does not have."""


class FitError(ContransError):
    """A vector or map cannot be fitted from the rows given."""


class ArtifactError(ContransError):
    """A stored vector, map or manifest is damaged, newer than this version, or of another kind."""


class SpecError(ContransError):
    """A pipeline spec or a setting is not valid."""


class RegistryError(ContransError):
    """The registry cannot be read, written or upgraded, or does not hold what was asked for."""
