"""The engine side's logger, a child of vLLM's own so that its lines reach vLLM's output."""

import logging

logger = logging.getLogger("vllm.trail")
