# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""From prompts and conversations to the texts that are tokenised.

Three rules, one for each way a prompt may be given:

  a prompt in a field of its own goes through `prompt_template`;
  a prompt that is the common beginning of two texts is left as it is;
  a conversation goes through the tokenizer's chat template.

Where the tokenizer has no chat template, or there is no tokenizer yet, turns
are written one after the other: user turns through `prompt_template`, every
other turn with a line break behind it. So a conversation of one question and one
answer is the same text as a row of a plain prompt and response;
`plain_template` is that rendering as a chat template, for exported models.
"""

import datetime
import json
from typing import Any

from warm_jax import errors
from warm_jax.data import rejects
from warm_jax.data import tokenizer as tokenizer_lib

# Templates that write the date would make a reward depend on the day:
# some are handed it, some ask for it.
# The day is that of the Llama 3 templates' own fixed default.
PINNED_DATE = datetime.datetime(2024, 7, 26)

Message = dict[str, str]


class Chat:
  """How prompts and responses of one run become text.

  Args:
    tokenizer: its chat template renders conversations; None or a tokenizer
      without one: plain rendering.
    prompt_template: text around plain prompts; holds '{prompt}'.
  """

  def __init__(
    self,
    tokenizer: tokenizer_lib.Tokenizer | None = None,
    prompt_template: str = '{prompt}',
  ):
    self._hf: Any = tokenizer.hf if tokenizer else None
    self._template: str | None = None
    if self._hf is not None and self._hf.chat_template:
      self._template = _pinned(_template_of(self._hf))
    self.prompt_template = prompt_template

  def frame(self, prompt: str) -> str:
    """A plain prompt in its template.

    '{prompt}' alone takes prompts as they are; any other template decides on
    the white space around the prompt, and the prompt's own is left out.
    """
    if self.prompt_template == '{prompt}':
      return prompt
    return self.prompt_template.replace('{prompt}', prompt.strip())

  def response(self, text: str) -> str:
    """A plain response as it stands behind a framed prompt.

    White space at its end is left out, since the end of sequence follows; that
    at its start too if the template ends in white space already.
    """
    return (
      text.strip() if _ends_in_space(self.prompt_template) else text.rstrip()
    )

  def prompt(self, messages: list[Message]) -> str:
    """Text of the turns of a prompt, up to where the response begins."""
    return self._render(messages, True)

  def split(
    self, prompt: list[Message], response: list[Message]
  ) -> tuple[str, str]:
    """Texts of a conversation before and after the start of its response.

    The response carries no end of sequence: that is added as a token, exactly
    once, and what a template writes behind it is left out (a sampler stops
    there).

    Raises:
      BadRow: the template refuses the turns, or rewrites earlier turns when
        later ones follow, so that the response has no place of its own.
    """
    head, whole = self.prompt(prompt), self._render(prompt + response, False)
    if not whole.startswith(head):
      raise rejects.BadRow(
        'the chat template renders the prompt otherwise when the response '
        'follows'
      )
    text = whole[len(head) :].rstrip()
    if self._template and self._hf.eos_token:
      text = text.removesuffix(self._hf.eos_token)
    return head, text

  def _render(self, messages: list[Message], open_turn: bool) -> str:
    if self._template is None:
      return self._render_plainly(messages)
    try:
      return self._hf.apply_chat_template(
        messages,
        chat_template=self._template,
        tokenize=False,
        add_generation_prompt=open_turn,
        date_string=PINNED_DATE.strftime('%d %b %Y'),
      )
    # A template is a program, and raises what it likes.
    except Exception as error:
      told = ' '.join(str(error).split())
      raise rejects.BadRow(f'the chat template refuses it: {told}') from error

  def _render_plainly(self, messages: list[Message]) -> str:
    return ''.join(
      self.frame(message['content'])
      if message['role'] == 'user'
      else self.response(message['content']) + '\n'
      for message in messages
    )


def _template_of(hf) -> str:
  try:
    template = hf.get_chat_template()
  except ValueError as error:  # several, none of them the default
    raise errors.UserError(f'tokenizer: {error}') from error
  if not isinstance(template, str):
    raise errors.UserError(
      f'tokenizer: chat_template is {template!r}, not text; correct it in '
      'tokenizer_config.json'
    )
  return template


def _pinned(template: str) -> str:
  """Puts a macro of its name before the function that tells the time."""
  if 'strftime_now' not in template:
    return template
  letters = [*(f'-{c}' for c in 'dmHIMSj'), *'aAbBcdfHIjmMpSUwWxXyYzZ']
  steps = ''.join(
    f' | replace({_quoted("%" + c)}, {_quoted(PINNED_DATE.strftime("%" + c))})'
    for c in letters
  )
  return (
    '{%- macro strftime_now(format) -%}{{ format'
    + steps
    + ' }}{%- endmacro -%}'
    + template
  )


def plain_template(prompt_template: str) -> str:
  """The plain rendering as a chat template (Jinja), for exported tokenizers.

  The beginning of sequence is left to the tokenizer, the end stands behind the
  last response.
  """
  before, _, after = prompt_template.partition('{prompt}')
  prompt = response = "message['content']"
  if prompt_template != '{prompt}':
    prompt += '.strip()'
  response += '.strip()' if _ends_in_space(prompt_template) else '.rstrip()'
  return (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    f'{{{{ {_quoted(before)} + {prompt} + {_quoted(after)} }}}}'
    f'{{% elif loop.last %}}{{{{ {response} + eos_token }}}}'
    f'{{% else %}}{{{{ {response} + "\\n" }}}}{{% endif %}}{{% endfor %}}'
  )


def _ends_in_space(prompt_template: str) -> bool:
  return prompt_template[-1:].isspace()


def _quoted(text: str) -> str:
  """A Jinja literal; its escapes are those of Python and of JSON."""
  return json.dumps(text)
