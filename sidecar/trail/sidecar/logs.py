"""The sidecar's logger, set up in one place."""

import logging
import sys

LOGGER_NAME = "trail.sidecar"


def set_up_logging(level: int = logging.INFO) -> None:
    """Sends the sidecar's lines to standard error; called once, by the command."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s trail sidecar: %(message)s"))
    logger = logging.getLogger(LOGGER_NAME)
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def get_logger() -> logging.Logger:
    """The sidecar's logger."""
    return logging.getLogger(LOGGER_NAME)
