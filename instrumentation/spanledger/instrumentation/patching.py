"""Whether an SDK is patched: its installed version must be one that we know, and have what we
patch.

The launcher does not look at `instrumentation_dependencies`, so that we do, when the SDK is
imported: the path of modules is the application's by then, and what is never used is never said.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import wrapt
from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

from spanledger.api.guard import say_once, swallow

Wrapper = Callable[[Callable[..., Any], Any, Any, Any], Any]


def when_supported(requirement: str, module: str, patch: Callable[[Any], None]) -> None:
    """Do `patch` with `module`, now or when it is imported, where the SDK fits `requirement`."""

    def on_import(imported: Any) -> None:
        with swallow(f"patching {module}"):
            if supported(requirement):
                patch(imported)

    wrapt.register_post_import_hook(on_import, module)


def say_unsupported(requirement: str, package: str) -> None:
    """Say that the SDK does not fit, also where its release has no module that is patched."""
    when_supported(requirement, package, lambda _: None)


@functools.cache
def supported(requirement: str) -> bool:
    """Whether the installed SDK fits `requirement`; where it does not, that is said."""
    conflict = get_dependency_conflicts((requirement,))
    if conflict is None or conflict.found is None:  # without metadata: as frozen applications are
        return True
    say_once(
        "version",
        requirement,
        "spanledger does not meter %s: it knows %s. Install such a version, or use @metered",
        conflict.found,
        requirement,
    )
    return False


def lay(module: Any, patches: Mapping[str, Wrapper], lost: str) -> None:
    """Wrap the functions of `module` that `patches` names: all, or none where one is not there.

    lost: what is then not done, for the log.
    """
    places = []
    for path, wrapper in patches.items():
        try:
            places.append((*wrapt.resolve_path(module, path), wrapper))
        except AttributeError:
            say_once(
                "patching",
                (module.__name__, path),
                "spanledger finds no %s.%s: %s. Upgrade spanledger, or install an earlier release "
                "of that package",
                module.__name__,
                path,
                lost,
            )
            return
    for parent, attribute, original, wrapper in places:
        wrapt.apply_patch(parent, attribute, wrapt.FunctionWrapper(original, wrapper))
