"""@metered on every kind of function, and as a block: the function stays itself, each use is one charge."""

import asyncio
import copy
import gc
import http.client
import inspect
import pickle
import socket
import threading
import urllib.request
from collections.abc import AsyncGenerator, Callable, Generator
from decimal import Decimal
from typing import Any

import aiohttp
import httpx2
import pytest
import requests
import urllib3
from books import Books
from loopback import Loopback
from openai_endpoint import CHAT_NANO_USD, MESSAGES, answering, chat
from opentelemetry import baggage, trace

from spanledger.api import Usage, attribute, current_attribution, feature, guard
from spanledger.api.errors import ConfigurationError
from spanledger.instrumentation.metered import metered

CHAT = {"messages": MESSAGES, "model": "gpt-4o-mini"}
CENT = 10_000_000  # nano-USD

cent = metered(provider="geocoder", operation="geocode", cost="0.01")
SEARCH = feature("search")


@cent
def plain(value: int = 1) -> int:
    return value


@cent
async def coroutine(value: int = 1) -> int:
    await asyncio.sleep(0)
    return value


@cent
def generator(count: int = 3) -> Generator[int, str | None, str]:
    got = None
    for number in range(count):
        try:
            got = yield number
        except KeyError:
            got = "thrown"
    return f"end {got}"


@cent
async def async_generator(count: int = 3) -> AsyncGenerator[int | str, str | None]:
    for number in range(count):
        try:
            got = yield number
            if got:
                yield got
        except KeyError:
            yield "thrown"


@SEARCH
def featured() -> Generator[str | None, None, None]:
    yield current_attribution().feature


@SEARCH
async def featured_async() -> AsyncGenerator[str | None, None]:
    yield current_attribution().feature


class Service:
    @cent
    def method(self, value: int) -> tuple[str, int]:
        return type(self).__name__, value

    @classmethod
    @cent
    def inner_class(cls, value: int) -> tuple[str, int]:
        return cls.__name__, value

    @cent
    @classmethod
    def outer_class(cls, value: int) -> tuple[str, int]:
        return cls.__name__, value

    @staticmethod
    @cent
    def inner_static(value: int) -> int:
        return value

    @cent
    @staticmethod
    async def outer_static(value: int) -> int:
        return value

    @cent
    async def coroutine(self, value: int) -> int:
        return value

    @cent
    def generator(self) -> Generator[int, None, None]:
        yield 1

    @SEARCH
    def featured(self) -> Generator[str | None, None, None]:
        yield current_attribution().feature

    @attribute(tenant="acme")
    @classmethod
    def tenant(cls) -> str | None:
        return current_attribution().tenant


def costs(books: Books) -> list[tuple[int | None, str, str]]:
    return [(row.nano_usd, row.cost_status, row.outcome) for row in books.rows()]


ONE = [(CENT, "exact", "ok")]


# -- the function stays itself ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "is_kind"),
    [
        (plain, inspect.isfunction),
        (coroutine, inspect.iscoroutinefunction),
        (coroutine, asyncio.iscoroutinefunction),
        (generator, inspect.isgeneratorfunction),
        (async_generator, inspect.isasyncgenfunction),
        (featured, inspect.isgeneratorfunction),
        (featured_async, inspect.isasyncgenfunction),
        (Service().generator, inspect.isgeneratorfunction),
        (Service().featured, inspect.isgeneratorfunction),
        (Service().coroutine, inspect.iscoroutinefunction),
    ],
)
def test_inspect_takes_it_for_what_it_was(
    function: Callable[..., Any], is_kind: Callable[[Any], bool]
) -> None:
    assert is_kind(function)
    if not inspect.ismethod(function):
        assert inspect.signature(function) == inspect.signature(inspect.unwrap(function))


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator, featured])
def test_it_is_pickled_and_copied_as_functions_are(function: Callable[..., Any]) -> None:
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy({"tool": function})["tool"] is function


async def test_methods_of_every_kind(books: Books) -> None:
    service = Service()
    assert service.method(1) == ("Service", 1)
    assert Service.inner_class(2) == Service.outer_class(2) == ("Service", 2)
    assert service.outer_class(2) == ("Service", 2)
    assert Service.inner_static(3) == 3
    assert await Service.outer_static(4) == 4
    assert await service.coroutine(5) == 5
    assert list(service.generator()) == [1]
    assert costs(books) == ONE * 8
    assert Service.tenant() == "acme"
    assert list(service.featured()) == ["search"]


# -- generators ------------------------------------------------------------------------------------


def test_a_generator_is_sent_to_thrown_into_and_returns(books: Books) -> None:
    def delegating() -> Generator[Any, Any, str]:
        return (yield from generator())

    made = delegating()
    assert next(made) == 0
    assert made.send("hello") == 1
    assert made.throw(KeyError()) == 2
    with pytest.raises(StopIteration) as stop:
        made.send("bye")
    assert stop.value.value == "end bye"
    assert costs(books) == ONE


async def test_an_async_generator_is_sent_to_and_thrown_into(books: Books) -> None:
    made = async_generator()
    assert await anext(made) == 0
    assert await made.asend("hello") == "hello"
    assert await anext(made) == 1
    assert await made.athrow(KeyError()) == "thrown"
    assert await anext(made) == 2
    assert [item async for item in made] == []
    assert costs(books) == ONE


def test_a_generator_never_started_costs_nothing(books: Books) -> None:
    generator().close()
    generator()
    gc.collect()
    assert costs(books) == []


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_generator_left_half_way_is_charged_once_and_cleans_up(books: Books, how: str) -> None:
    cleaned: list[str] = []

    @cent
    def items() -> Generator[int, None, None]:
        try:
            yield 1
            yield 2
        finally:
            cleaned.append("up")

    made = items()
    assert next(made) == 1
    if how == "close":
        made.close()
    del made
    books.collect()
    assert cleaned == ["up"]
    assert costs(books) == ONE


@pytest.mark.parametrize("how", ["aclose", "drop"])
async def test_an_async_generator_left_half_way(books: Books, how: str) -> None:
    cleaned: list[str] = []

    @cent
    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    made = items()
    assert await anext(made) == 1
    if how == "aclose":
        await made.aclose()
    del made
    books.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    assert cleaned == ["up"]
    assert costs(books) == ONE


def test_a_generator_that_raises_is_billed_and_estimated(books: Books) -> None:
    @cent
    def items() -> Generator[int, None, None]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(items())
    assert costs(books) == [(CENT, "estimated", "error")]


def test_a_generator_that_was_refused_a_connection_costs_nothing(books: Books) -> None:
    @cent
    def items() -> Generator[int, None, None]:
        raise httpx2.ConnectError("refused")
        yield 1

    with pytest.raises(httpx2.ConnectError):
        list(items())
    assert costs(books) == [(0, "exact", "error")]


async def test_an_async_generator_that_was_refused_a_connection_costs_nothing(books: Books) -> None:
    @cent
    async def items() -> AsyncGenerator[int, None]:
        raise httpx2.ConnectError("refused")
        yield 1

    with pytest.raises(httpx2.ConnectError):
        [item async for item in items()]
    assert costs(books) == [(0, "exact", "error")]


def test_a_generator_is_on_the_account_of_whoever_called_it(books: Books) -> None:
    """As a streaming response is: made in the request's block, read after it."""
    with attribute(tenant="acme"), feature("stream"):
        made = generator()
    with attribute(tenant="other"):
        assert len(list(made)) == 3
    row = books.row()
    assert (row.tenant_id, row.feature) == ("acme", "stream")


async def test_an_async_generator_is_on_the_account_of_whoever_called_it(books: Books) -> None:
    with attribute(tenant="acme"):
        made = async_generator()
    assert len([item async for item in made]) == 3
    assert books.row().tenant_id == "acme"


def test_a_generator_read_in_two_threads(books: Books) -> None:
    made = generator()
    assert next(made) == 0
    rest: list[int] = []
    thread = threading.Thread(target=lambda: rest.extend(made))
    thread.start()
    thread.join()
    assert rest == [1, 2]
    assert costs(books) == ONE


async def test_an_async_generator_read_in_two_tasks(books: Books) -> None:
    made = async_generator()
    assert await asyncio.create_task(_first(made)) == 0
    assert await asyncio.create_task(_collected(made)) == [1, 2]
    assert costs(books) == ONE


async def _first(items: AsyncGenerator[Any, Any]) -> Any:
    return await anext(items)


async def _collected(items: AsyncGenerator[Any, Any]) -> list[Any]:
    return [item async for item in items]


# -- what the user says of a result ----------------------------------------------------------------


def _raises(_: object) -> Any:
    raise RuntimeError("the user's own")


def _generating() -> Generator[int, None, None]:
    yield 1
    yield 2


async def _generating_async() -> AsyncGenerator[int, None]:
    yield 1
    yield 2


@pytest.mark.parametrize("key", ["usage", "cost", "credits"])
@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "async generator", "block"])
async def test_a_callable_that_raises_is_a_charge_of_unknown_price(
    books: Books, key: str, kind: str
) -> None:
    guard.reraise_internal_errors(False)
    meter = metered(provider="geocoder", operation="geocode", **{key: _raises})
    if kind == "function":
        assert meter(lambda: 7)() == 7
    elif kind == "coroutine":
        assert await meter(coroutine.__wrapped__)(7) == 7  # type: ignore[attr-defined]
    elif kind == "generator":
        assert list(meter(_generating)()) == [1, 2]
    elif kind == "async generator":
        assert [item async for item in meter(_generating_async)()] == [1, 2]
    else:
        with meter as call:
            call.result = 7
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.outcome) == (None, "unknown", "ok")
    books.span()


def test_usage_of_a_stream_left_before_its_first_item(books: Books) -> None:
    """The usual usage function reads a field of the last item, and there is none."""
    guard.reraise_internal_errors(False)

    @metered(provider="geocoder", operation="geocode", cost=lambda last: last["cost"])
    def items() -> Generator[dict[str, str], None, None]:
        raise ZeroDivisionError
        yield {"cost": "0.01"}

    with pytest.raises(ZeroDivisionError):
        list(items())
    row = books.row()
    assert (row.cost_status, row.outcome) == ("unknown", "error")
    books.span()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"input_tokens": 3}, (None, "unknown")),
        (Usage(reported_cost=0.01), (CENT, "exact")),  # type: ignore[arg-type]
        (Usage(reported_cost="0.01"), (CENT, "exact")),  # type: ignore[arg-type]
        (Usage(credits=2), (2 * CENT, "exact")),  # type: ignore[arg-type]
        (Usage(credits=2.0), (2 * CENT, "exact")),  # type: ignore[arg-type]
        (Usage(reported_cost=Decimal(-1)), (None, "unknown")),
        (Usage(reported_cost=Decimal("NaN")), (None, "unknown")),
        (Usage({"input_tokens": -3}), (None, "unknown")),
        (Usage({"input_tokens": "many"}), (None, "unknown")),  # type: ignore[dict-item]
        (Usage({"input_tokens": None}), (None, "unknown")),  # type: ignore[dict-item]
        (Usage(None), (None, "unknown")),  # type: ignore[arg-type]
        (Usage(credits=True), (None, "unknown")),  # type: ignore[arg-type]
    ],
)
def test_usage_that_is_not_what_it_should_be_loses_no_call(
    make_books: Callable[..., Books], said: Any, expected: tuple[int | None, str]
) -> None:
    guard.reraise_internal_errors(False)
    books = make_books(geocoder="0.01")
    function = metered(provider="geocoder", operation="geocode", usage=lambda _: said)(lambda: 7)
    assert function() == 7
    row = books.row()
    assert (row.nano_usd, row.cost_status) == expected
    books.span()


def test_long_names_do_not_make_long_attributes(books: Books) -> None:
    """The books keep them whole."""
    unpriced = tuple(f"thing-{number}" for number in range(999))
    function = metered(
        provider="p" * 9999,
        operation="o" * 9999,
        usage=lambda _: Usage(reported_cost=Decimal("0.01"), unpriced=unpriced),
    )(plain)
    other = metered(
        provider="geocoder", operation="geocode", usage=lambda _: Usage(unpriced=unpriced)
    )
    function()
    other(plain)()
    for span in books.spans():
        assert len(span.name) <= 256
        assert span.attributes is not None
        for name, value in span.attributes.items():
            assert len(str(value)) <= 256, name
    (reason,) = filter(None, (row.unpriced_reason for row in books.rows()))
    assert len(reason) > 9999


# -- errors of HTTP clients that say whether a call is billed --------------------------------------


async def _aiohttp(url: str) -> None:
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url):
        pass


def _connect(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    socket.create_connection((host, int(port)), timeout=5).close()


CLIENTS: dict[str, Callable[[str], Any]] = {
    "urllib": lambda url: urllib.request.urlopen(url, timeout=5),
    "urllib3": lambda url: urllib3.PoolManager().request("GET", url, retries=False),
    "aiohttp": lambda url: asyncio.run(_aiohttp(url)),
    "http.client": lambda url: http.client.HTTPConnection(url[7:]).request("GET", "/"),
    "socket": _connect,
    "requests": lambda url: requests.get(url, timeout=5).raise_for_status(),
}
FAILURES = (OSError, aiohttp.ClientError, urllib3.exceptions.HTTPError)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_connection_that_was_refused_is_not_billed(books: Books, client: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(FAILURES):
        cent(CLIENTS[client])(url)
    assert costs(books) == [(0, "exact", "error")]


@pytest.mark.parametrize("client", ["urllib", "aiohttp", "socket", "http.client"])
def test_a_name_that_is_not_there_is_not_billed(books: Books, client: str) -> None:
    with pytest.raises(OSError):
        cent(CLIENTS[client])("http://no-such-name.invalid:80")
    assert costs(books) == [(0, "exact", "error")]


@pytest.mark.parametrize("status", [404, 429, 500])
@pytest.mark.parametrize("client", ["urllib", "aiohttp", "requests"])
def test_the_status_says_whether_it_is_billed(books: Books, client: str, status: int) -> None:
    with Loopback(lambda _: (status, {})) as server, pytest.raises(FAILURES):
        cent(CLIENTS[client])(server.url)
    billed = [(CENT, "estimated", "error")] if status == 500 else [(0, "exact", "error")]
    assert costs(books) == billed


def test_a_code_that_is_no_status_says_nothing(books: Books) -> None:
    def leave() -> None:
        raise SystemExit(4)

    with pytest.raises(SystemExit):
        cent(leave)()
    assert costs(books) == [(CENT, "estimated", "error")]


# -- plain functions whose result is awaited -------------------------------------------------------


class Page:
    """What an SDK gives: it can be awaited, and more."""

    size = 7

    def __await__(self) -> Generator[Any, Any, str]:
        return _answer("page").__await__()


async def _answer(value: str) -> str:
    await asyncio.sleep(0)
    if value == "broken":
        raise ZeroDivisionError
    if value == "refused":
        raise ConnectionRefusedError
    return value


def _task(value: str) -> "asyncio.Task[str]":
    return asyncio.create_task(_answer(value))


class Asked:
    async def __call__(self, value: str) -> str:
        return await _answer(value)


AWAITED: dict[str, Callable[[str], Any]] = {
    "a coroutine": lambda value: _answer(value),
    "a task": _task,
    "a callable object": Asked(),
}


@pytest.mark.parametrize("kind", AWAITED)
@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        ("fish", None, (CENT, "exact", "ok")),
        ("broken", ZeroDivisionError, (CENT, "estimated", "error")),
        ("refused", ConnectionRefusedError, (0, "exact", "error")),
    ],
)
async def test_what_is_awaited_is_booked_at_its_end(
    books: Books, kind: str, value: str, error: type[Exception] | None, expected: Any
) -> None:
    meter = metered(
        provider="geocoder", operation="geocode", cost=lambda said: said == "fish" and "0.01"
    )
    if error is not None:
        meter = cent
    made = meter(AWAITED[kind])(value)
    if kind != "a callable object":
        assert not books.rows()
    if error is None:
        assert await made == value
    else:
        with pytest.raises(error):
            await made
    await asyncio.sleep(0)
    assert costs(books) == [expected]


async def test_what_can_be_awaited_is_itself_all_the_same(books: Books) -> None:
    page = cent(Page)()
    assert isinstance(page, Page)
    assert page.size == 7
    assert not books.rows()
    assert await page == "page"
    assert costs(books) == ONE
    task = cent(_task)("fish")
    assert isinstance(task, asyncio.Task)
    assert await asyncio.gather(task, asyncio.create_task(cent(lambda: _answer("a"))())) == [
        "fish",
        "a",
    ]


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
async def test_what_nobody_awaits_is_an_estimate(books: Books) -> None:
    made = cent(lambda: _answer("fish"))()
    assert not books.rows()
    del made
    books.collect()
    assert costs(books) == [(CENT, "estimated", "ok")]


@pytest.mark.parametrize("kind", ["a coroutine", "a task"])
async def test_what_is_cancelled_is_an_estimate(books: Books, kind: str) -> None:
    task = asyncio.ensure_future(cent(AWAITED[kind])("fish"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert costs(books) == [(CENT, "estimated", "error")]


async def test_an_error_that_nobody_fetches_is_still_told_of(books: Books) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what["message"]))
    task = cent(_task)("broken")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert costs(books) == [(CENT, "estimated", "error")]
    del task
    gc.collect()
    assert told == ["Task exception was never retrieved"]


async def test_what_is_awaited_carries_no_attribution_to_the_wire(books: Books) -> None:
    async def ask() -> tuple[Any, Any]:
        return baggage.get_baggage("tenant.id"), trace.get_current_span()

    with attribute(tenant="acme"):
        made = cent(lambda: ask())()
    sent, span = await made
    assert sent is None
    assert span.get_span_context().span_id == books.span().get_span_context().span_id
    assert books.row().tenant_id == "acme"


# -- blocks ----------------------------------------------------------------------------------------


def test_one_object_for_blocks_in_one_another(books: Books) -> None:
    meter = metered(provider="geocoder", operation="geocode")
    with meter as outer:
        with meter as inner:
            inner.cost = "0.01"
        outer.cost = "0.02"
    assert sorted(row.nano_usd or 0 for row in books.rows()) == [CENT, 2 * CENT]
    assert len(books.spans()) == 2


def test_one_object_for_blocks_in_many_threads(books: Books) -> None:
    meter = metered(provider="geocoder", operation="geocode")
    barrier = threading.Barrier(8)

    def use(number: int) -> None:
        with attribute(tenant=f"t{number}"), meter as call:
            barrier.wait()
            call.cost = Decimal(number)
            barrier.wait()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(row.tenant_id, row.nano_usd) for row in books.rows()} == {
        (f"t{number}", number * 10**9) for number in range(1, 9)
    }


async def test_one_object_for_blocks_in_many_tasks(books: Books) -> None:
    meter = metered(provider="geocoder", operation="geocode")

    async def use(number: int) -> None:
        async with meter as call:
            await asyncio.sleep(0.001 * (number % 3))
            call.cost = Decimal(number)
            await asyncio.sleep(0.001 * (number % 2))

    await asyncio.gather(*(use(number) for number in range(1, 9)))
    assert sorted(row.nano_usd or 0 for row in books.rows()) == [n * 10**9 for n in range(1, 9)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Usage(reported_cost=Decimal("0.01")), (CENT, "exact", None)),
        (lambda result: Usage(reported_cost=Decimal(result)), (CENT, "exact", None)),
        (5, (None, "unknown", "unpriced:usage")),
    ],
)
def test_usage_of_a_block(books: Books, said: Any, expected: Any) -> None:
    guard.reraise_internal_errors(False)
    with metered(provider="geocoder", operation="geocode") as call:
        call.result, call.usage = "0.01", said
    row = books.row()
    assert (row.nano_usd, row.cost_status, row.unpriced_reason) == expected


@pytest.mark.parametrize("said", [-1, "cheap", True, float("nan")])
def test_a_cost_that_is_no_amount_is_unknown(books: Books, said: Any) -> None:
    with metered(provider="geocoder", operation="geocode") as call:
        call.cost = said
    row = books.row()
    assert (row.nano_usd, row.unpriced_reason) == (None, "unpriced:usage")


def test_a_usage_that_is_a_value(books: Books) -> None:
    usage = Usage(reported_cost=Decimal("0.01"))
    meter = metered(provider="geocoder", operation="geocode", usage=usage)
    assert meter(lambda: 7)() == 7
    with pytest.raises(ZeroDivisionError):
        meter(lambda: 1 / 0)()
    assert costs(books) == [*ONE, (CENT, "estimated", "error")]


@pytest.mark.parametrize("key", ["cost", "credits", "usage"])
@pytest.mark.parametrize("said", [-1, "cheap", {"input_tokens": 3}])
def test_what_is_no_amount_is_said_where_it_is_written(key: str, said: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"@metered: {key}: is .*Give a "):
        metered(provider="geocoder", operation="geocode", **{key: said})


def test_a_cost_and_its_credits(books: Books) -> None:
    assert metered(provider="geocoder", operation="geocode", cost="0.01", credits=2)(lambda: 7)()
    row = books.row()
    assert (row.nano_usd, row.credits, row.cost_status) == (CENT, 2, "exact")


async def test_one_attribute_object_for_blocks_in_many_tasks_and_threads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    acme, search = attribute(tenant="acme"), feature("search")
    seen: list[tuple[str | None, str | None]] = []

    async def use(number: int) -> None:
        with acme, search:
            await asyncio.sleep(0.001 * (number % 3))
        after = current_attribution()
        seen.append((after.tenant, after.feature))

    await asyncio.gather(*(use(number) for number in range(8)))
    with search:
        await asyncio.gather(*(use(number) for number in range(8)))
    barrier = threading.Barrier(2)

    def late(number: int) -> None:
        with acme:
            barrier.wait()
            if number:
                barrier.wait()
        after = current_attribution()
        seen.append((after.tenant, after.feature))
        if not number:
            barrier.wait()

    threads = [threading.Thread(target=late, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(None, None)] * 8 + [(None, "search")] * 8 + [(None, None)] * 2
    assert not caplog.records


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_block_that_raises(books: Books, asynchronous: bool) -> None:
    with pytest.raises(ZeroDivisionError):
        if asynchronous:
            async with cent:
                raise ZeroDivisionError
        else:
            with cent:
                raise ZeroDivisionError
    assert costs(books) == [(CENT, "estimated", "error")]
    books.span()


async def test_a_cancelled_block_and_a_cancelled_coroutine(books: Books) -> None:
    async def block() -> None:
        async with cent:
            await asyncio.sleep(10)

    @cent
    async def function() -> None:
        await asyncio.sleep(10)

    for make in (block, function):
        task = asyncio.create_task(make())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert costs(books) == [(CENT, "estimated", "error")] * 2
    assert {row.error_type for row in books.rows()} == {"CancelledError"}


async def test_a_cancelled_async_generator(books: Books) -> None:
    cleaned: list[str] = []

    @cent
    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.sleep(10)
        finally:
            cleaned.append("up")

    async def read() -> None:
        async for _ in items():
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == ["up"]
    assert costs(books) == [(CENT, "estimated", "error")]
    assert books.row().error_type == "CancelledError"


async def test_a_coroutine_never_awaited_costs_nothing(books: Books) -> None:
    coroutine().close()
    assert costs(books) == []


# -- nested ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["function", "generator", "block", "coroutine", "async generator"])
async def test_calls_inside_a_metered_use_are_calls_of_the_same_tenant(
    books: Books, way: str
) -> None:
    client = answering(chat()).client()

    def call() -> None:
        client.chat.completions.create(**CHAT)

    def items() -> Generator[int, None, None]:
        call()
        yield 1

    async def items_async() -> AsyncGenerator[int, None]:
        call()
        yield 1

    async def asynchronous() -> None:
        call()

    with attribute(tenant="acme", user="u-1"), feature("research"):
        use = current_attribution().use_id
        if way == "function":
            cent(call)()
        elif way == "generator":
            list(cent(items)())
        elif way == "coroutine":
            await cent(asynchronous)()
        elif way == "async generator":
            [item async for item in cent(items_async)()]
        else:
            with cent:
                call()
        with cent, attribute(user="u-2"), feature("research"):
            call()
    rows = sorted(books.rows(), key=lambda row: (row.timestamp_ns, row.provider))
    assert [(row.tenant_id, row.feature, row.use_id) for row in rows] == [
        ("acme", "research", use)
    ] * 4
    assert [row.user_id for row in rows] == ["u-1", "u-1", "u-1", "u-2"]
    assert sorted(row.nano_usd or 0 for row in rows) == [CHAT_NANO_USD] * 2 + [CENT] * 2
    spans = {span.name: span for span in books.spans()}
    inner, outer = spans["chat gpt-4o-mini"], spans["geocode"]
    assert inner.context is not None
    assert outer.context is not None
    assert inner.context.trace_id == outer.context.trace_id or way == "block"


def test_a_metered_function_calls_itself(books: Books) -> None:
    @cent
    def down(number: int) -> int:
        return down(number - 1) if number else 0

    with attribute(tenant="acme"):
        assert down(3) == 0
    assert costs(books) == ONE * 4
    assert {row.tenant_id for row in books.rows()} == {"acme"}
