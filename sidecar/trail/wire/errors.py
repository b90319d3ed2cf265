"""What can go wrong between the engine and the sidecar."""


class WireError(Exception):
    """A contract between engine and sidecar could not be kept; the message says what to do."""


class LayoutError(WireError):
    """A shared file is not one this build reads: foreign, truncated, damaged or of another layout version."""
