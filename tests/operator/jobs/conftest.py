"""The cluster that commands see as well."""

from cluster_kit import api

__all__ = ["api"]
