"""The server's figures for Prometheus, under the names that vLLM has, with the prefix `coolsd:`.

Counters of tokens and drafts are of finished images and texts: they add up to what the answers say. Knows Prometheus.
Does not know HTTP or processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from coolsd_rt.serve.drawer import Drawer

Reason = Literal["stop", "abort", "error", "timeout"]
REASONS: tuple[Reason, ...] = ("stop", "abort", "error", "timeout")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
_MODEL = ("model_name",)


class _States(Collector):
    """What the hosts are doing, asked when somebody reads the metrics."""

    def __init__(self, hosts: Iterable[Drawer]) -> None:
        self._hosts = list(hosts)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        values: dict[str, tuple[str, list[float | None]]] = {
            "coolsd:num_requests_running": ("Images and texts in slots.", [host.running for host in self._hosts]),
            "coolsd:num_requests_waiting": (
                "Images and texts that wait for a slot.",
                [host.waiting for host in self._hosts],
            ),
            "coolsd:engine_ready": (
                "Whether the engine takes requests.",
                [host.state == "ready" for host in self._hosts],
            ),
            "coolsd:engine_restarts": ("Starts of its process after the first.", [h.restarts for h in self._hosts]),
            "coolsd:images_retried": ("Images asked for again: a replica was lost.", [h.retries for h in self._hosts]),
        }
        for name, (text, numbers) in values.items():
            gauge = GaugeMetricFamily(name, text, labels=_MODEL)
            for host, number in zip(self._hosts, numbers, strict=True):
                if number is not None:
                    gauge.add_metric([host.engine.name], float(number))
            if gauge.samples:
                yield gauge
        if any(host.replicas for host in self._hosts):
            yield self._replicas()

    def _replicas(self) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily("coolsd:replicas", "Processes of an engine.", labels=(*_MODEL, "state"))
        for host in self._hosts:
            for state, number in host.replicas.items():
                gauge.add_metric([host.engine.name, state], float(number))
        return gauge


class ServerMetrics:
    """All figures, in a registry of their own."""

    def __init__(self, hosts: Mapping[str, Drawer]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second number beside each, of no use here
        self._registry = registry = CollectorRegistry()
        registry.register(_States(hosts.values()))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"coolsd:{name}", text, (*_MODEL, *labels), registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"coolsd:{name}", text, _MODEL, registry=registry, buckets=_SECONDS)

        self._requests = counter("request_success", "Requests that ended, by how.", "finished_reason")
        self._images = counter("images", "Finished images.")
        self._texts = counter("texts", "Texts that ended, by how; abort: nobody waited any more.", "finished_reason")
        self._tokens = counter("generation_tokens", "Tokens of finished images and texts.")
        self._prompt = counter("prompt_tokens", "Prompt tokens of finished images and texts.")
        self._rounds = counter("spec_decode_num_drafts", "Rounds with drafts.")
        self._drafts = counter("spec_decode_num_draft_tokens", "Drafted tokens.")
        self._accepted = counter("spec_decode_num_accepted_tokens", "Accepted drafts.")
        self._positions = counter("spec_decode_num_accepted_tokens_per_pos", "Accepted drafts by place.", "position")
        self._latency = histogram("e2e_request_latency_seconds", "From a request to its whole answer.")
        self._first = histogram(
            "time_to_first_token_seconds", "From a request to its first partial or final image, or text."
        )
        self._queue = histogram("request_queue_time_seconds", "From a request to a slot, of each image or text.")
        for name, host in hosts.items():
            for ended in ("stop", "length", "abort") if host.engine.makes == "text" else ():
                self._texts.labels(name, ended)
            for reason in REASONS:
                self._requests.labels(name, reason)
            for one in (self._images, self._tokens, self._prompt, self._rounds, self._drafts, self._accepted):
                one.labels(name)

    def image(self, model: str, figures: Mapping[str, Any], text_tokens: int) -> None:
        """Count a finished image. figures: of its answer."""
        self._images.labels(model).inc()
        self._count(model, figures, text_tokens)

    def _count(self, model: str, figures: Mapping[str, Any], prompt_tokens: int) -> None:
        accepted: list[int] = figures["accepted"]
        self._tokens.labels(model).inc(figures["tokens"])
        self._prompt.labels(model).inc(prompt_tokens)
        self._rounds.labels(model).inc(sum(count > 0 for count in figures["num_drafts"]))
        self._drafts.labels(model).inc(sum(figures["num_drafts"]))
        self._accepted.labels(model).inc(sum(accepted))
        for position in range(max(accepted, default=0)):
            self._positions.labels(model, str(position)).inc(sum(count > position for count in accepted))
        self._queue.labels(model).observe(figures["seconds_queue"])

    def text(self, model: str, figures: Mapping[str, Any], prompt_tokens: int, reason: str) -> None:
        """Count a finished text. figures: of its answer. reason: why it ended."""
        self._texts.labels(model, reason).inc()
        self._count(model, figures, prompt_tokens)

    def texts_left(self, model: str, count: int) -> None:
        """Count texts that were not finished: nobody waited for them any more, or they were lost."""
        self._texts.labels(model, "abort").inc(count)

    def first(self, model: str, seconds: float) -> None:
        """Record when the first of a request was there: an image, finished or not, or characters of a text."""
        self._first.labels(model).observe(seconds)

    def request(self, model: str, reason: Reason, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(model, reason).inc()
        if reason == "stop":
            self._latency.labels(model).observe(seconds)

    def document(self) -> bytes:
        """Return the figures in Prometheus' text format."""
        return generate_latest(self._registry)
