"""Chat templates: what they render, and that they can do nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coolsd_rt.errors import UserError
from coolsd_rt.prompts.chat import ChatTemplate

jinja2 = pytest.importorskip("jinja2")

SMOL = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
Be brief.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
USER = [{"role": "user", "content": "Hi {{ 7 * 7 }} {% x %}"}]


def load(tmp_path: Path, text: str) -> ChatTemplate:
    path = tmp_path / "chat_template.jinja"
    path.write_text(text, encoding="utf-8")
    return ChatTemplate.load(path)


def test_a_chat_is_rendered_up_to_the_answer(tmp_path: Path) -> None:
    """What a message says is text, never a template."""
    text = load(tmp_path, SMOL).render(USER)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi {{ 7 * 7 }} {% x %}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_it_is_what_transformers_renders(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [*USER, {"role": "assistant", "content": "So: 'quoted' & <b>"}, {"role": "user", "content": "\n  Why?\t"}]
    for template in (SMOL, "{% for m in messages %}\n  {% if m.role %}\n{{ m | tojson }}\n  {% endif %}\n{% endfor %}"):
        given: Any = render_jinja_template([turns], chat_template=template, add_generation_prompt=True)
        assert load(tmp_path, template).render(turns) == given[0][0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{% for %}", "Expected"),
        ("{{ messages", "unexpected end"),
        ("{% include 'other' %}", "no loader"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "immutable|not safely callable|unsafe"),
        ("{% for i in range(100000000) %}{% endfor %}", "range"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "unsafe"),
        ("{{ nothing.of.this }}", "undefined"),
    ],
)
def test_a_template_that_is_none_or_reaches_out_is_one_line(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(UserError, match=found) as caught:
        load(tmp_path, text).render(USER)
    assert "\n" not in str(caught.value)


def test_a_template_may_refuse_messages(tmp_path: Path) -> None:
    template = load(tmp_path, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(UserError, match="messages: expected messages that the chat template takes, found roles must"):
        template.render(USER)


def test_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a chat template"):
        ChatTemplate.load(tmp_path / "none.jinja")
