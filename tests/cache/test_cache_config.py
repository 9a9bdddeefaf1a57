import tomllib

import pytest

from spanledger.api.errors import ConfigurationError
from spanledger.api.settings import Section
from spanledger.cache.config import CacheConfig, Rule, read_cache_config


def read(text: str) -> CacheConfig:
    return read_cache_config(Section(tomllib.loads(text), "spanledger.toml", "cache"))


def test_nothing_is_cached_without_a_rule() -> None:
    config = read("")
    assert config.rule("scavio", "google.search") is None
    assert config == CacheConfig()


def test_a_rule_is_read_in_full() -> None:
    config = read(
        """
        max_bytes = 100000
        max_entry_bytes = 5000
        wait = "2s"
        ["scavio/google.search"]
        fresh = "15m"
        stale = "24h"
        empty = "10s"
        refresh_ahead = "1m"
        public = true
        """
    )
    assert config.rule("scavio", "google.search") == Rule(900, 86400, 10, 60, public=True)
    assert (config.max_bytes, config.max_entry_bytes, config.wait_s) == (100000, 5000, 2.0)


def test_defaults_of_a_rule() -> None:
    assert read('"a/b" = {fresh = "20s"}').rule("a", "b") == Rule(20, 20, 20, 0, public=False)
    assert read('"a/b" = {fresh = "2h"}').rule("a", "b") == Rule(7200, 7200, 30, 0, public=False)


def test_the_most_specific_rule_wins_whatever_the_order() -> None:
    config = read(
        """
        "*/*" = {fresh = "1s"}
        "scavio/*" = {fresh = "2s"}
        "scavio/google.*" = {fresh = "3s"}
        "scavio/google.search" = {fresh = "4s"}
        "scavio/usage" = false
        """
    )

    def fresh(provider: str, operation: str) -> float | None:
        rule = config.rule(provider, operation)
        return rule.fresh_s if rule else None

    assert fresh("tavily", "search") == 1
    assert fresh("scavio", "amazon.product") == 2
    assert fresh("scavio", "google.maps") == 3
    assert fresh("scavio", "google.search") == 4
    assert fresh("scavio", "usage") is None


def test_a_pattern_is_no_regular_expression() -> None:
    config = read('"scavio/google.*" = {fresh = "1s"}')
    assert config.rule("scavio", "googleXsearch") is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('"a/b" = {}', "cache.a/b.fresh"),
        ('"a/b" = {fresh = "1 fortnight"}', "cache.a/b.fresh"),
        ('"a/b" = {fresh = "2m", stale = "1m"}', "cache.a/b.stale"),
        ('"a/b" = {fresh = "2m", refresh_ahead = "3m"}', "cache.a/b.refresh_ahead"),
        ('"a/b" = {fresh = "2m", publik = true}', "cache.a/b.publik"),
        ('"a/b" = true', "cache.a/b"),
        ("max_byte = 100000", "cache.max_byte"),
        ("max_bytes = 0", "cache.max_bytes"),
    ],
)
def test_a_mistake_names_its_key(text: str, key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    assert caught.value.key == key
    assert caught.value.source == "spanledger.toml"


def test_the_secret_is_not_shown() -> None:
    config = read('secret = "hunter2"')
    assert config.secret not in (b"", b"hunter2")
    assert "hunter2" not in repr(config)
    assert repr(config.secret) not in repr(config)
