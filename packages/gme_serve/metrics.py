"""The server's Prometheus metrics, in a registry of their own. Knows names and labels only."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TOKENS = (64, 256, 1024, 2048, 4096, 8192, 16384, 65536)
_UNROUTED = "none"


class Metrics:
    """The metrics of one server; ``/metrics`` shows its `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("route", "status")
        self.requests = Counter("gme_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "gme_request_seconds", "From request to answer.", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self.items = Counter("gme_items", "Items embedded.", registry=self.registry)
        self.tokens = Counter("gme_tokens", "Tokens embedded.", registry=self.registry)
        self.waiting = Gauge("gme_queue_depth", "Requests that wait for the model.", registry=self.registry)
        self.waiting_tokens = Gauge("gme_queue_tokens", "Tokens that wait for the model.", registry=self.registry)
        self.batch_tokens = Histogram(
            "gme_batch_tokens", "Tokens computed together.", buckets=_TOKENS, registry=self.registry
        )
        self.corpus_items = Gauge("gme_corpus_items", "Items that are searched.", registry=self.registry)
        self.corpus_updates = Counter(
            "gme_corpus_updates",
            "New versions of the corpus, by what became of them.",
            ("result",),
            registry=self.registry,
        )
        # Both series exist from the start, so that a rate of the first event can be computed.
        for result in ("served", "refused"):
            self.corpus_updates.labels(result)


class CountRequests:
    """ASGI middleware that counts and times every request.

    The label of a route is its template, so that clients can't create time series at will; it is ``none`` for requests
    without a route and those that were refused before routing.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            # The router sets the route in the scope on the way in.
            route = getattr(scope.get("route"), "path", _UNROUTED)
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
