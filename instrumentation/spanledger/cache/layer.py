"""The data layer: responses kept, and identical calls in flight made one.

    rule = layer.rule("scavio", "google.search")
    key = layer.key(rule, provider="scavio", operation="google.search", request={...}, tenant="t1")
    answer = layer.begin(key, rule)                   # async: await layer.async_begin(key, rule)
    if isinstance(answer, Follow):
        answer = answer.wait()                        # async: await answer.async_wait()
    if isinstance(answer, Hit):      serve answer.value; its call avoided answer.saved
    elif isinstance(answer, Failed): raise answer.error, or what answer.detail tells
    else:                            make the call; answer.store(result, nano_usd, credits) or
        answer.fail(kind)

Nothing here raises: where the cache fails, the answer is a lead that is alone, and the call goes to
the provider.
"""

from collections.abc import Mapping
from functools import lru_cache

from spanledger.api.guard import say_once, swallow
from spanledger.cache.config import CacheConfig, Rule
from spanledger.cache.control import Control, current_control
from spanledger.cache.flight import Follow, Hit, Lead, Lookup
from spanledger.cache.keys import cache_key
from spanledger.cache.steps import Steps, adrive, drive
from spanledger.cache.store import Ask, Store, StoreDownError


class DataLayer:
    """The cache by its configuration, over a store. Safe among threads and event loops."""

    def __init__(self, config: CacheConfig, store: Store) -> None:
        self.config = config
        self._store = store
        self._rule = lru_cache(1024)(config.rule)

    def rule(self, provider: str, operation: str) -> Rule | None:
        """The rule for an operation; None where it is not cached, and this layer is not asked."""
        return self._rule(provider, operation)

    def key(
        self,
        rule: Rule,
        *,
        provider: str,
        operation: str,
        request: Mapping[str, object],
        tenant: str | None = None,
    ) -> str | None:
        """The key of a request (see `cache_key`); None where it has none, and is not cached."""
        try:
            return cache_key(
                self.config.secret,
                provider=provider,
                operation=operation,
                request=request,
                tenant=tenant,
                public=rule.public,
            )
        except (TypeError, ValueError, RecursionError) as error:
            say_once(
                "cache.key",
                (provider, operation),
                "calls of %s %s are not cached: their parameters are not JSON (%s). Pass texts, "
                "numbers, lists and tables; of a method, meter a function without self",
                provider,
                operation,
                type(error).__name__,
            )
            return None

    def begin(self, key: str | None, rule: Rule) -> Hit | Lead | Follow:
        """Look for the result of a call that starts now, in the caller's `cache_control`.

        Without a key the answer is a lead that is alone.
        """
        return drive(self._begin(key, rule, current_control()))

    async def async_begin(self, key: str | None, rule: Rule) -> Hit | Lead | Follow:
        """As `begin`, without blocking the event loop."""
        return await adrive(self._begin(key, rule, current_control()))

    def close(self) -> None:
        """Let go of connections."""
        self._store.close()

    def _begin(self, key: str | None, rule: Rule, control: Control) -> Steps[Hit | Lead | Follow]:
        if control.bypass or key is None:
            return Lead(bypassed=control.bypass)
        with swallow("cache.begin"):
            ask = Ask(control.ttl_s, control.refresh, rule.ahead_s)
            lookup = Lookup(self._store, self.config, key, rule, ask)
            try:
                reply = yield lookup.asked(ask)
                try:
                    return lookup.answer(reply)
                except ValueError as error:
                    say_once("cache.begin", "damaged", "an entry is fetched anew: %s", error)
                    reply = yield lookup.asked(ask._replace(refresh=True))
                    return lookup.answer(reply)
            except StoreDownError:
                pass
        return Lead()
