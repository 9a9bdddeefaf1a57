"""Cache keys: a keyed hash of what was asked, by whom. No request can be read from its key."""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

# A change of what goes into a key changes all keys, and so never serves an entry made by other
# rules.
_FORMAT: Final = "spanledger/2"
_encode: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
).encode


def cache_key(
    secret: bytes,
    *,
    provider: str,
    operation: str,
    request: Mapping[str, object],
    tenant: str | None,
    public: bool,
) -> str:
    """The key of a request: 48 hexadecimal digits.

    request: what the response depends on, as it would travel (JSON values, sorted by key here),
        with the API's version, where its address has one.
        Credentials have no place in it: two clients with different keys to the same provider ask
        the same.
    tenant: who may share the entry; None is a tenant of its own. Ignored where the operation is
        `public`.

    Raises TypeError or ValueError where the request is not JSON: there is no safe key for it.
    """
    owner = ["public"] if public else ["tenant", tenant]
    text = _encode([_FORMAT, provider, operation, owner, dict(request)])
    return hashlib.blake2b(text.encode(), digest_size=24, key=secret[:64]).hexdigest()
