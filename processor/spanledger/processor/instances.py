"""Processes that call themselves the same are told apart.

A `service.instance.id` that comes from the environment (the OpenTelemetry operator gives each
container one) or from the application's code is the same in each worker that uvicorn or
multiprocessing spawns. Their counters would be one series that jumps between the workers' sums,
and each jump down would be taken for a restart and counted anew.

So a process notes its id where its children inherit it, and a child that finds its own id taken
puts its process id behind it. Forked children need none of this: the SDK gives them a random id.
"""

import os
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, Resource

from spanledger.api.guard import swallow

_NOTE: Final = "_SPANLEDGER_INSTANCE"  # "process id, instance id" of the first of these processes


def tell_apart(provider: object) -> None:
    """Give `provider`'s metrics an instance id that no ancestor of this process has."""
    if isinstance(provider, MeterProvider):
        with swallow("instance"):
            _tell_apart(provider)


def _tell_apart(provider: Any) -> None:
    own = str(os.getpid())
    instance = provider._sdk_config.resource.attributes.get(SERVICE_INSTANCE_ID)  # noqa: SLF001 - there is no public name
    if instance is None:
        return
    pid, _, taken = os.environ.get(_NOTE, "").partition(" ")
    if taken == instance and pid != own:
        renamed = Resource({SERVICE_INSTANCE_ID: f"{instance}-{own}"})
        provider._update_resource(renamed)  # noqa: SLF001 - nor here
    else:
        os.environ[_NOTE] = f"{own} {instance}"
