"""A request's texts, from asking an engine for them to the documents of the answer.

Knows which text is whose in an answer. Does not know HTTP, or the names in documents (`text_documents`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from coolsd_rt.runtime.randomness import SEED_LIMIT
from coolsd_rt.serve.api_errors import ApiError, invalid
from coolsd_rt.serve.commission import Commission, check_seconds
from coolsd_rt.serve.drawer import Drawer, TextOrder
from coolsd_rt.serve.messages import GainedMessage, Lost, OfOrder, WrittenMessage
from coolsd_rt.serve.metrics import Reason, ServerMetrics
from coolsd_rt.serve.text_documents import TextDocuments, usage_of
from coolsd_rt.serve.text_request import ChatRequest, CompletionRequest, of_chat


class TextCommission(Commission):
    """The texts of one request. Created by `TextCommission.taken`, which takes their places in the queue."""

    def __init__(
        self, host: Drawer, request: CompletionRequest | ChatRequest, metrics: ServerMetrics, seconds: float
    ) -> None:
        super().__init__(host, metrics, seconds)
        self._request = request
        self._written: dict[int, WrittenMessage] = {}
        engine = host.engine
        self._documents = TextDocuments(request.chat, engine.name, engine.fingerprint, self._created)

    @staticmethod
    def taken(
        host: Drawer, request: CompletionRequest | ChatRequest, metrics: ServerMetrics, most_seconds: float
    ) -> TextCommission:
        """Check what depends on the engine, and ask it for the texts. Raises ApiError."""
        field, most = request.most
        tokens = host.engine.opened.description.dims.tokens
        if most is not None and most > tokens:
            raise invalid(field, f"at most {tokens}, the text.length of the engine", str(most))
        if request.chat and not host.engine.chats:
            fix = "send a text to continue to /v1/completions"
            raise invalid("messages", "an engine with a chat template", "one without", fix)
        made = TextCommission(host, request, metrics, check_seconds(request.timeout, most_seconds))
        made.ask(made._orders(), "n" if request.texts > 1 else "prompt")
        return made

    def _orders(self) -> list[TextOrder]:
        request, seed = self._request, self._request.first_seed()
        every = [request.text_options((seed + k) % SEED_LIMIT) for k in range(request.texts)]
        stop, parts = request.stops, bool(request.stream)
        return [TextOrder(prompt, options, stop, parts) for prompt in request.prompts for options in every]

    async def answer(self) -> dict[str, Any]:
        """Wait for all texts and return the answer. Raises ApiError."""
        with self.counted():
            async with self.deadline():
                for index, draw in enumerate(self._draws):
                    if isinstance(message := await self.last(draw), WrittenMessage):
                        self._count(index, message)
            written = self._in_order()
            warnings = list(dict.fromkeys(line for one in written for line in one.warnings))
            return self._documents.answer(written, usage_of(written, self._request.texts), warnings)

    async def events(self, first: tuple[int, OfOrder] | None) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Yield the events of a stream, and None where nothing has happened for a while. Raises ApiError."""
        documents, tells_usage = self._documents, self._request.tells_usage
        none = {"usage": None} if tells_usage else {}
        found = first
        with self.counted():
            for index in range(len(self._draws) if self._request.chat else 0):
                yield {**documents.begin(index), **none}
            while True:
                index, message = found or (0, None)
                if isinstance(message, GainedMessage):
                    self.see()
                    yield {**documents.gained(index, message.text), **none}
                elif isinstance(message, WrittenMessage):
                    self._count(index, message)
                    yield {**documents.end(index, message), **none}
                if len(self._written) == len(self._draws):
                    break
                if (found := await self.next()) is None:
                    yield None
            if tells_usage:
                yield documents.usage(usage_of(self._in_order(), self._request.texts))

    def _in_order(self) -> list[WrittenMessage]:
        return [self._written[index] for index in sorted(self._written)]

    def _count(self, index: int, written: WrittenMessage) -> None:
        self.see()
        self._written[index] = written
        self._metrics.text(self._host.engine.name, written.figures, written.prompt_tokens, written.reason)

    def _lost(self, message: Lost) -> ApiError:
        error = super()._lost(message)
        return of_chat(error) if self._request.chat else error

    def _close(self, reason: Reason) -> None:
        if not self._closed and (left := len(self._draws) - len(self._written)):
            self._metrics.texts_left(self._host.engine.name, left)
        super()._close(reason)
