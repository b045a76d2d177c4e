"""Turns the messages of a chat into one text, by the Jinja template that was published with a model.

A template is a program from a file that others wrote. It runs in Jinja's sandbox: it can read the messages and make
text, and nothing else. Variables and settings are those of transformers. Knows templates and messages. Does not know
tokens. Needs the package `jinja2`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolsd_rt.errors import UserError
from coolsd_rt.files import read_text
from coolsd_rt.limits import TEMPLATE_BYTES
from coolsd_rt.pretrained.special_tokens import SPECIAL_TOKENS
from coolsd_rt.shown import shorten

TEMPLATE_FILE = "chat_template.jinja"
_WHAT = "a chat template"
Message = Mapping[str, str]
"""A message of a chat: its `role` (system, user, assistant) and its `content`."""


class _Refused(Exception):
    """A template's own `raise_exception`."""


@dataclass(frozen=True)
class ChatTemplate:
    """A compiled template. path: for errors."""

    path: Path
    compiled: Any

    @staticmethod
    def load(path: Path) -> ChatTemplate:
        """Read and compile the template at `path`.

        Raises UserError: no such file, no template, or one that needs a special token whose value it does not have.
        """
        text = read_text(path, _WHAT, TEMPLATE_BYTES, fix="name the template that was published with the target")
        from jinja2 import meta
        from jinja2.exceptions import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = _json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        try:
            missing = sorted(meta.find_undeclared_variables(environment.parse(text)) & SPECIAL_TOKENS.keys())
            compiled = environment.from_string(text)
        except (TemplateError, RecursionError) as error:
            raise UserError(str(path), expected=_WHAT, found=_first(error)) from error
        if missing:
            fix = f"put {{% set {missing[0]} = '...' %}} at its top, with the tokenizer's token"
            expected = f"a template that says what its {missing[0]} is"
            raise UserError(str(path), expected=expected, found="no value", fix=fix)
        return ChatTemplate(path, compiled)

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text of a chat, up to where the assistant's answer begins.

        Raises UserError if the template refuses the messages, for instance a role that it does not know.
        """
        given = [dict(message) for message in messages]
        try:
            text: str = self.compiled.render(messages=given, add_generation_prompt=True)
        except _Refused as error:
            expected = "messages that the chat template takes"
            raise UserError("messages", expected=expected, found=_first(error)) from error
        except Exception as error:  # a template can fail in any way
            fix = "name the template that was published with the target"
            raise UserError(
                str(self.path), expected="a template of such messages", found=_first(error), fix=fix
            ) from error
        return text


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _refuse(message: str) -> None:
    raise _Refused(message)


def _first(error: BaseException) -> str:
    return shorten(" ".join(str(error).split()) or type(error).__name__, 160)
