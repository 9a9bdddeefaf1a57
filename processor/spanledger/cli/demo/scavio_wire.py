"""Scavio's wire protocol: endpoints priced in credits, crawl and batch jobs, the account's balance.

What costs how much follows the SDK's own descriptions of the endpoints. A name with "unknown" in it
is not found; where the provider bills such a miss, so does this server.
"""

import threading
from typing import Final

from spanledger.cli.demo.wire import Json, Reply, Request, draw, new_id

CREDITS_AT_START: Final = 100_000

# Credits by path below /api/v1/, then by platform; everything else costs 1.
BY_PATH: Final = {
    "youtube/search": 2,
    "youtube/transcript": 5,
    "linkedin/search/jobs": 10,
    "linkedin/company/posts": 10,
    "linkedin/person/posts": 10,
    "linkedin/job": 30,
    "chatgpt/prompt": 2,
    "gemini/prompt": 5,
}
BY_PLATFORM: Final = {"indeed": 2, "trustpilot": 2, "threads": 2, "g2": 5}
_BILLS_MISSES: Final = ("indeed", "appstore")
_LISTS: Final = {"amazon": "products", "walmart": "products"}
_POLLS_UNTIL_DONE: Final = 2


class ScavioWire:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._by_key: dict[str, _Job] = {}
        self._remaining = CREDITS_AT_START
        self._calls = 0

    def serves(self, request: Request) -> bool:
        return request.path.startswith("/api/v")

    def answer(self, request: Request) -> Reply:
        with self._lock:
            self._calls += 1
            parts = request.path.split("/")[3:]
            if parts == ["usage"]:
                return Reply(self._usage())
            if parts[0] == "extract" and parts[1:2] in (["crawl"], ["batch"]):
                return self._job(request, parts[1], parts[2] if len(parts) > 2 else None)
            return self._search(request, parts)

    def error(self, status: int, message: str) -> Json:
        return {"error": message, "status": status}

    def _search(self, request: Request, parts: list[str]) -> Reply:
        asked = {**request.query, **request.body}
        price = credits_for("/".join(parts), asked)
        name = next((str(value) for value in asked.values()), parts[-1])
        if "unknown" in name:
            billed = price if parts[0] in _BILLS_MISSES else 0
            return Reply({"error": f"{name} was not found", **self._bill(billed)}, 404)
        found = [
            {
                "position": position,
                "title": f"{name}, result {position}",
                "link": f"https://site{draw(name, f'link {position}', 1, 999)}.example/",
                "snippet": f"What somebody wrote about {name}",
            }
            for position in range(1, draw(name, "results", 3, 9) + 1)
        ]
        if parts[0] == "google":
            results: Json = {"news_results" if "news" in parts else "organic_results": found}
        else:
            results = {"data": {"name": name, _LISTS.get(parts[0], "results"): found}}
        return Reply({**results, **self._bill(price)})

    def _bill(self, price: int) -> Json:
        self._remaining -= price
        return {"credits_used": price, "credits_remaining": self._remaining}

    def _usage(self) -> Json:
        return {
            "plan": "demo",
            "credit_balance": self._remaining,
            "purchased_credits": CREDITS_AT_START,
            "searches_used": self._calls,
        }

    # -- jobs --------------------------------------------------------------------------------------

    def _job(self, request: Request, kind: str, job_id: str | None) -> Reply:
        if job_id is None:
            key = request.headers.get("idempotency-key") or new_id("key_")
            job = self._by_key.get(key)
            if job is None:
                job = self._by_key[key] = _Job(kind, request.body)
                self._jobs[job.id] = job
            return Reply({"data": job.created(), **self._bill(0)}, 202)
        job = self._jobs.get(job_id)
        if job is None:
            return Reply(self.error(404, f"no such {kind}: {job_id}"), 404)
        if request.method == "DELETE":
            if job.status in ("completed", "cancelled"):
                return Reply(self.error(409, f"{kind} {job_id} has already finished"), 409)
            job.status = "cancelled"
        else:
            self._remaining -= job.advance()
        return Reply({"data": job.report(request)})


class _Job:
    """A crawl or batch: half of its pages come with the first poll, the rest with the second."""

    def __init__(self, kind: str, body: Json) -> None:
        self.id = new_id(f"{kind}_")
        self.kind = kind
        self.status = "queued"
        self.price = credits_for("extract", body)
        self.urls: list[str] = list(body.get("urls") or ())
        if kind == "crawl":
            site = str(body.get("url"))
            pages = min(int(body.get("max_pages") or 10), draw(site, "pages", 3, 10))
            self.urls = [f"{site.rstrip('/')}/page-{n}" for n in range(1, pages + 1)]
        self.failing = draw(self.urls, "failing", 0, 1)
        self.done = 0
        self._polls = 0

    @property
    def credits_used(self) -> int:
        """Credits so far: failed pages are free."""
        return sum(self._succeeded(index) for index in range(self.done)) * self.price

    def _succeeded(self, index: int) -> bool:
        return index < len(self.urls) - self.failing

    def created(self) -> Json:
        return {
            "id": self.id,
            "status": "queued",
            "status_url": f"/api/v1/extract/{self.kind}/{self.id}",
            "credits_per_page": self.price,
            **({"urls_count": len(self.urls), "invalid_urls": []} if self.kind == "batch" else {}),
        }

    def advance(self) -> int:
        """Go on by one poll. Returns the credits that this took."""
        if self.status in ("completed", "cancelled"):
            return 0
        before = self.credits_used
        self._polls += 1
        self.done = len(self.urls) * self._polls // _POLLS_UNTIL_DONE
        self.status = "completed" if self._polls == _POLLS_UNTIL_DONE else "running"
        return self.credits_used - before

    def report(self, request: Request) -> Json:
        start = int(request.query.get("cursor") or 0)
        end = min(start + int(request.query.get("limit") or 25), self.done)
        with_content = request.query.get("include_content") != "false"
        succeeded = sum(self._succeeded(index) for index in range(self.done))
        return {
            "id": self.id,
            "status": self.status,
            "stopped_reason": None,
            "pages": {
                "discovered": len(self.urls),
                "queued": len(self.urls) - self.done,
                "succeeded": succeeded,
                "failed": self.done - succeeded,
                "skipped": 0,
            },
            "credits_used": self.credits_used,
            "results": [self._result(index, with_content) for index in range(start, end)],
            "next_cursor": str(end) if end < self.done else None,
        }

    def _result(self, index: int, with_content: bool) -> Json:  # noqa: FBT001 - said by the caller
        text = f"# Page {index + 1}\n\nWhat {self.urls[index]} says."
        return {
            "url": self.urls[index],
            "status": "succeeded" if self._succeeded(index) else "failed",
            "content_length": len(text),
            **({"content": text} if with_content else {}),
        }


def credits_for(path: str, body: Json) -> int:
    """Credits of one call of the endpoint at `path` (below /api/v1/) with this body."""
    platform = path.partition("/")[0]
    match platform:
        case "walmart" if path in ("walmart/search", "walmart/category", "walmart/product"):
            store = bool(body.get("delivery_zip") and body.get("store_id"))
            return 2 if store or body.get("domain") == "com.mx" else 1
        case "threads" if body.get("username"):
            return 4
        case "extract" if body.get("mode") == "ultra":
            return 10 if path == "extract/map" else 2
        case _:
            return BY_PATH.get(path, BY_PLATFORM.get(platform, 1))
