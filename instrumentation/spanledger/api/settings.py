"""Settings: the one reader of the environment and of the configuration file.

The file is TOML: the one that SPANLEDGER_CONFIG names, else `./spanledger.toml` where there is one.
A variable of the environment wins over the file. Each part of spanledger checks its own table
through `Section`, at start, so that a mistake is one clear error that names file, key and remedy.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

from spanledger.api.errors import ConfigurationError

T = TypeVar("T")
_MISSING: Final[Any] = object()
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Variable(NamedTuple):
    """An environment variable of ours and the key of the file that it stands for."""

    name: str
    key: str
    doc: str


VARIABLES: Final = (
    Variable(
        "SPANLEDGER_CONFIG",
        "",
        "path of the configuration file; default ./spanledger.toml where it exists",
    ),
    Variable(
        "SPANLEDGER_JOURNAL",
        "journal",
        "sqlite:///path or memory://; default: the user's state directory",
    ),
    Variable(
        "SPANLEDGER_LEDGER",
        "ledger",
        "memory://, sqlite:///path or redis://...: where budgets are held",
    ),
    Variable(
        "SPANLEDGER_CACHE", "cache_store", "memory:// or redis://...: where responses are cached"
    ),
    Variable(
        "SPANLEDGER_TRUST_INCOMING", "attribution.trust_incoming", "never (default) or always"
    ),
    Variable(
        "SPANLEDGER_USD_PER_CREDIT",
        "",
        "provider=price[,provider=price]: what a credit costs in USD",
    ),
    Variable("SPANLEDGER_DISABLED", "", "true: spanledger does nothing at all"),
)


class Section:
    """One table of the configuration, read key by key; what nobody read is a mistake (`finish`).

    Every reader takes a default (without one the key is required) and raises ConfigurationError.
    """

    def __init__(self, values: Mapping[str, object], source: str, path: str = "") -> None:
        self.values = values
        self.source = source
        self.path = path
        self._read: set[str] = set()

    def error(self, key: str, problem: str, remedy: str) -> ConfigurationError:
        """The error for `key` of this table."""
        path = f"{self.path}.{key}" if self.path and key else key or self.path
        return ConfigurationError(problem, source=self.source, key=path, remedy=remedy)

    def _get(self, key: str, default: T, convert: Callable[[object], T | None], what: str) -> T:
        self._read.add(key)
        value = self.values.get(key, _MISSING)
        if value is _MISSING:
            if default is _MISSING:
                raise self.error(key, "is missing", f"Set it to {what}.")
            return default
        converted = convert(value)
        if converted is None:
            raise self.error(key, f"is {value!r}", f"Set it to {what}.")
        return converted

    def text(self, key: str, default: str | None = _MISSING) -> str:
        """A non-empty string."""
        return cast(
            "str",
            self._get(key, default, lambda v: v if isinstance(v, str) and v else None, "a text"),
        )

    def choice(self, key: str, choices: Sequence[str], default: str = _MISSING) -> str:
        """One of `choices`."""
        what = "one of " + ", ".join(f'"{c}"' for c in choices)
        return self._get(
            key, default, lambda v: v if isinstance(v, str) and v in choices else None, what
        )

    def flag(self, key: str, default: bool = _MISSING) -> bool:  # noqa: FBT001 - as its siblings
        """True or false."""
        self._read.add(key)
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"is {value!r}", "Set it to true or false.")
        return value

    def number(
        self, key: str, default: Decimal | None = _MISSING, *, least: str = "0", most: str = "1e15"
    ) -> Decimal:
        """A number from `least` to `most`; a string is read as an exact decimal."""

        def convert(value: object) -> Decimal | None:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                return None
            try:
                number = Decimal(str(value))
            except ArithmeticError:
                return None
            return (
                number if number.is_finite() and Decimal(least) <= number <= Decimal(most) else None
            )

        return cast("Decimal", self._get(key, default, convert, f"a number from {least} to {most}"))

    def seconds(self, key: str, default: float | None = _MISSING) -> float:
        """A duration: "250ms", "15m", "24h", "3d", or a number of seconds."""

        def convert(value: object) -> float | None:
            if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
                return float(value)
            if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
                return float(match[1]) * _SECONDS[match[2]]
            return None

        return cast(
            "float", self._get(key, default, convert, 'a duration such as "250ms", "15m" or "24h"')
        )

    def day(self, key: str, default: date | None = _MISSING) -> date:
        """A date, 2026-01-31; a text of that form is read as one."""

        def convert(value: object) -> date | None:
            if isinstance(value, str):
                try:
                    return date.fromisoformat(value)
                except ValueError:
                    return None
            # A time of day would be dropped without a word.
            return value if isinstance(value, date) and not isinstance(value, datetime) else None

        return cast("date", self._get(key, default, convert, "a date such as 2026-01-31"))

    def strings(self, key: str, default: tuple[str, ...] = _MISSING) -> tuple[str, ...]:
        """A list of strings."""

        def convert(value: object) -> tuple[str, ...] | None:
            if isinstance(value, list) and all(
                isinstance(item, str) and item for item in cast("list[object]", value)
            ):
                return tuple(cast("list[str]", value))
            return None

        return self._get(key, default, convert, 'a list of texts such as ["plan"]')

    def section(self, key: str) -> "Section":
        """A sub-table; empty where the file has none."""
        self._read.add(key)
        value = self.values.get(key, {})
        if not isinstance(value, Mapping):
            raise self.error(key, f"is {value!r}", f"Make it a table: [{self._path_of(key)}].")
        return Section(cast("Mapping[str, object]", value), self.source, self._path_of(key))

    def sections(self, key: str) -> "tuple[Section, ...]":
        """A list of tables, [[key]]."""
        self._read.add(key)
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(
            isinstance(v, Mapping) for v in cast("list[object]", value)
        ):
            raise self.error(
                key, f"is {value!r}", f"Make it a list of tables: [[{self._path_of(key)}]]."
            )
        tables = cast("list[Mapping[str, object]]", value)
        return tuple(
            Section(t, self.source, f"{self._path_of(key)}[{i}]") for i, t in enumerate(tables)
        )

    def keys(self) -> tuple[str, ...]:
        """The keys of a table whose keys are names of the user's (models, providers)."""
        self._read.update(self.values)
        return tuple(self.values)

    def finish(self, known: Sequence[str] = ()) -> None:
        """Raise for a key that nobody read; `known` are more keys that somebody else reads."""
        for key in self.values:
            if key not in self._read and key not in known:
                import difflib  # noqa: PLC0415 - a millisecond, for an error

                near = difflib.get_close_matches(key, {*self._read, *known}, 1)
                remedy = (
                    f'Did you mean "{near[0]}"?'
                    if near
                    else "Remove it, or see docs/configuration.md."
                )
                raise self.error(key, "is not a setting", remedy)

    def _path_of(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


class Origin(NamedTuple):
    """Where a setting was said, for the errors about it.

    source: the file's path, "environment", "command line" or "code"; "default": nowhere.
    key: the key of the file, or the variable.
    """

    source: str
    key: str

    def error(self, problem: str, remedy: str) -> ConfigurationError:
        """The error about what was said there."""
        return ConfigurationError(problem, source=self.source, key=self.key, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment and the configuration file say.

    journal, ledger, cache_store: URLs, None for the default; `origin` says where each was set.
    extra_keys: further baggage keys that become columns of the books.
    root: the whole file, from which each part reads its own table.
    path: the file, None where there is none, or it is not used. candidate: where it is looked for,
        whether it is there or not.
    """

    root: Section
    path: Path | None = None
    candidate: Path | None = None
    journal: str | None = None
    ledger: str | None = None
    cache_store: str | None = None
    disabled: bool = False
    trust_incoming: bool = False
    extra_keys: tuple[str, ...] = ()
    usd_per_credit: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    origins: Mapping[str, Origin] = field(default_factory=dict[str, Origin])

    def origin(self, key: str) -> Origin:
        """Where the URL `key` was set."""
        return self.origins.get(key) or Origin("code", key)


# Tables of the file, and who reads them: attribution here; the rest by the part of that name, at
# start.
TABLES: Final = (
    "attribution",
    "prices",
    "providers",
    "budgets",
    "budget_defaults",
    "models",
    "cache",
    "metrics",
    "events",
)


def load_settings(
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    *,
    use_file: bool = True,
) -> Settings:
    """Read the environment and, with `use_file`, the file. Raises ConfigurationError."""
    env = os.environ if environ is None else environ
    candidate = _candidate(env, directory or Path.cwd())
    path = _config_path(env, candidate) if use_file else None
    root = Section(_parse(path), str(path)) if path else Section({}, "environment")
    attribution = root.section("attribution")
    trust = attribution.choice("trust_incoming", ("never", "always"), "never")
    if given := env.get("SPANLEDGER_TRUST_INCOMING"):
        if given not in ("never", "always"):
            raise ConfigurationError(
                f"is {given!r}",
                source="environment",
                key="SPANLEDGER_TRUST_INCOMING",
                remedy="Set it to never or always.",
            )
        trust = given
    extra = attribution.strings("extra_keys", ())
    attribution.finish()
    urls, origins = _urls(env, root)
    root.finish(TABLES)
    return Settings(
        root=root,
        path=path,
        candidate=candidate,
        **urls,
        disabled=env.get("SPANLEDGER_DISABLED", "").lower() in ("1", "true", "yes"),
        trust_incoming=trust == "always",
        extra_keys=extra,
        usd_per_credit=_usd_per_credit(env.get("SPANLEDGER_USD_PER_CREDIT", "")),
        origins=origins,
    )


_URLS: Final = {
    "journal": "SPANLEDGER_JOURNAL",
    "ledger": "SPANLEDGER_LEDGER",
    "cache_store": "SPANLEDGER_CACHE",
}


def _urls(env: Mapping[str, str], root: Section) -> tuple[dict[str, str | None], dict[str, Origin]]:
    """The URLs that are set, and where."""
    urls: dict[str, str | None] = {}
    origins: dict[str, Origin] = {}
    for key, variable in _URLS.items():
        urls[key] = root.text(key, None)
        origins[key] = Origin(root.source if key in root.values else "default", key)
        if given := env.get(variable):
            urls[key], origins[key] = given, Origin("environment", variable)
    return urls, origins


def _candidate(env: Mapping[str, str], directory: Path) -> Path:
    # Absolute: an application may change its directory.
    named = env.get("SPANLEDGER_CONFIG")
    return Path(named).absolute() if named else directory / "spanledger.toml"


def _config_path(env: Mapping[str, str], candidate: Path) -> Path | None:
    named = env.get("SPANLEDGER_CONFIG")
    if candidate.is_file():
        return Path(named) if named else candidate
    if named:
        raise ConfigurationError(
            f"names {named}, which is not a file",
            source="environment",
            key="SPANLEDGER_CONFIG",
            remedy="Correct the path or unset the variable.",
        )
    return None


def _parse(path: Path) -> dict[str, object]:
    import tomllib  # noqa: PLC0415 - two milliseconds, where there is a file

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot be parsed: {error}",
            source=str(path),
            key="(file)",
            remedy="Correct the TOML at that place.",
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}",
            source=str(path),
            key="(file)",
            remedy="Make the file readable.",
        ) from error


def _usd_per_credit(text: str) -> dict[str, Decimal]:
    prices: dict[str, object] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        provider, _, price = item.partition("=")
        prices[provider.strip()] = price.strip()
    section = Section(prices, "environment", "SPANLEDGER_USD_PER_CREDIT")
    return {provider: section.number(provider, most="1e6") for provider in prices}
