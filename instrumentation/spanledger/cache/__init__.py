"""Responses kept and shared between identical calls.

Applications import `cache_control`; the rest is for the call pipeline.
"""

from spanledger.cache.control import cache_control

__all__ = ["cache_control"]
