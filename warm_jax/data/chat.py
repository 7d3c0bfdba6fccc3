# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Writes prompts and conversations as text: by a chat template or a frame.

Also dialogues that are written as one text, and where a prompt ends in them.
"""

import dataclasses
import datetime
import functools
import json
import pathlib
import re
from typing import Any

from warm_jax import errors
from warm_jax.data import sources
from warm_jax.data import tokenizer as tokenizer_lib

BadRow = sources.BadRow

# Templates that write the date would make a reward depend on the day. This day
# is the default of the Llama 3 templates.
_DATE = datetime.datetime(2024, 7, 26)


class Chat:
  """Writes prompts and conversations as the text that a model reads.

  A plain prompt is put into `prompt_template`, and a list of turns is rendered
  by the tokenizer's chat template, or with user turns in `prompt_template` and
  others ending in a line break. With the style 'chat' a plain prompt is a turn,
  with 'plain' the chat template is not used. `tokenizer` makes ids of the text;
  special tokens that a row spells are text. `told` gathers remarks on rows.
  """

  def __init__(
    self,
    tokenizer: tokenizer_lib.Tokenizer | None = None,
    prompt_template: str = '{prompt}',
    style: str = '',
    is_exact: bool = False,
  ):
    """is_exact: what the chat template writes at the end of a response stays."""
    self.tokenizer, self.style, self.is_exact = tokenizer, style, is_exact
    self.prompt_template = prompt_template
    self.told: set[tuple[str, str]] = set()
    self.used: set[str] = set()  # ways in which prompts were written
    self._hf: Any = tokenizer.hf if tokenizer else None
    self._template: str | None = None
    if self._hf is not None and self._hf.chat_template and style != 'plain':
      self._template = _pinned_template(self._hf)

  def as_trained(self) -> dict[str, str]:
    """Style and template of whoever was trained on the rows written so far."""
    style, used = self.style, self.used
    if not style and used:
      style = 'plain' if 'chat' not in used else 'chat' * (len(used) == 1)
    template = '{prompt}' if used == {'bare'} else self.prompt_template
    return {'style': style, 'prompt_template': template}

  def samples(self) -> list[str | None]:
    """A plain prompt and conversations as written; None: refused."""
    user, answer = ({'role': r, 'content': 'x'} for r in ('user', 'assistant'))
    found = [self.prompt('x')]
    for turns in ([user], [user, answer, user]) if self._template else ():
      try:
        found.append(self.prompt(turns))
      except BadRow:
        found.append(None)
    self.used.clear()
    return found

  def closing(self) -> tuple:
    """Tokens that end a response, and those that a judge reads in their place.

    Empty if it reads the end as it was sampled.
    """
    if not self.is_exact and self.tokenizer.appends_eos:
      return ()
    after = self._parts[2] if self.is_exact else ''
    word, whole = self.tokenizer.encode(['a', f'a{after}'])
    ids = whole[num_common(word, whole) :]
    if self.tokenizer.appends_eos and ids[-1:] != [self.tokenizer.eos_id]:
      ids = [*ids, self.tokenizer.eos_id]
    ends = self.tokenizer.eos_ids
    return () if len(ids) == 1 and ids[0] in ends else (ends, tuple(ids))

  def literal(self, text: str, prompt: str = '') -> str:
    """A text whose special tokens, if it spells any, are read as text.

    Unless its plain prompt was rendered already, by the chat template.
    """
    opening = self._parts[0].strip()
    is_rendered = bool(opening) and prompt.rstrip().endswith(opening)
    if self.tokenizer is None or is_rendered:
      return text
    marked = self.tokenizer.literal(text)
    if marked != text:
      self.told.add(('names special tokens, read as text', 'the row'))
    return marked

  def reads(self, key: str) -> bool:
    """Whether the chat template mentions a field of turns, or `tools`."""
    name = rf'\b{re.escape(key)}\b'
    return bool(self._template and re.search(name, self._template))

  def prompt(self, prompt: str | list[dict], tools: list | None = None) -> str:
    """Text of a prompt, plain or in turns, up to where the response begins."""
    if not isinstance(prompt, str):
      return self._render(prompt, True, tools)
    if self.style == 'chat' and self._template:
      return self._render([{'role': 'user', 'content': prompt}], True, tools)
    self.used.add('plain')
    text = self.literal(prompt, prompt)
    return self.prompt_template.replace('{prompt}', text)

  def split(
    self, prompt: list[dict], response: list[dict], tools: list | None = None
  ) -> tuple[str, str]:
    """Texts of a conversation before and after the start of its response.

    The response ends with its turn: before the end of sequence, which is added
    as a token, or with a token that ends turns. BadRow if the template refuses
    or rewrites turns.
    """
    head = self._render(prompt, True, tools)
    whole = self._render(prompt + response, False, tools)
    if self.is_exact:
      size = len(head) if whole.startswith(head) else 0
      return whole[:size] and head, whole[size:]
    if whole.startswith(head):
      return head, self._closed(whole[len(head) :])
    before = self._render(prompt, False, tools)
    text = self._after_prefill(before, response, head, whole)
    return head, self._closed(text)

  def _after_prefill(self, before, response, head, whole) -> str:
    """The response where a template begins it only in front of a policy."""
    given, written, after = self._parts
    shared = before + written
    prefill = given.removeprefix(written)
    if not (prefill and head == shared + prefill and whole.startswith(shared)):
      raise BadRow(
        'the chat template renders the prompt otherwise when a response follows'
      )
    rest, answer = whole[len(shared) :], response[0]['content'].lstrip()
    opening, _, closing = prefill.partition('\n')
    closing = closing.strip()
    if opening and answer.startswith(opening) and len(response) == 1:
      if not closing:
        return answer.removeprefix(opening).removeprefix('\n') + after
      # The template puts an empty thought where the answer has one.
      _, found, answer = answer.partition(closing)
      if found:
        note = 'left out, as the chat template has an empty one'
        self.told.add((note, 'thought'))
        return answer.lstrip() + after
    if opening == '<think>' and not closing:
      return '\n</think>\n\n' + rest.lstrip()
    return rest

  @functools.cached_property
  def _parts(self) -> tuple[str, str, str]:
    if self._template is None:
      return '', '', ''
    options = {'chat_template': self._template}
    return tokenizer_lib.turn_parts(self._hf, **options)

  def _closed(self, text: str) -> str:
    after = self._parts[2]
    if self._template is None:
      return text.removesuffix('\n')
    if not (after and text.endswith(after)):
      return text.rstrip().removesuffix(self._hf.eos_token)
    ends = self._hf.convert_ids_to_tokens([*self.tokenizer.eos_ids])
    found = [(after.index(end), end) for end in ends if end in after]
    text = text.removesuffix(after)
    if not found:
      return text + after.rstrip()
    place, end = min(found)
    return text + after[:place] + end * (end != self._hf.eos_token)

  def _render(self, messages: list[dict], open_turn: bool, tools) -> str:
    if self._template is None:
      return ''.join(
        self.prompt(message['content'])
        if message['role'] == 'user'
        else message['content'] + '\n'
        for message in messages
      )
    self.used.add('chat')
    messages = [m | {'content': self.literal(m['content'])} for m in messages]
    joined, text, refusal = _joined(messages), '', None
    for turns in [messages] + [joined] * (joined != messages):
      try:
        rendered = self._hf.apply_chat_template(
          turns,
          chat_template=self._template,
          tokenize=False,
          add_generation_prompt=open_turn,
          tools=tools,
          date_string=_DATE.strftime('%d %b %Y'),
        )
      # A template is a program, and raises what it likes.
      except Exception as error:
        refusal = refusal or error
        continue
      text = text or rendered
      # Some write no system turn, without a word.
      if all(m['content'].strip() in rendered for m in messages[:1]):
        if turns is joined:
          self.told.add(('turns joined, as the chat template asks', 'system'))
        return rendered
    if refusal and not text:
      reason = ' '.join(str(refusal).split())
      raise BadRow(f'the chat template refuses it: {reason}') from refusal
    return text

  def described(self) -> dict[str, Any]:
    """The format of the texts for config.json: `end` is behind an answer."""
    ends = self._hf.convert_ids_to_tokens([*self.tokenizer.eos_ids])
    end = self._closed(self._parts[2])
    return {
      'style': self.style,
      'add_bos': self.tokenizer.bos_id is not None,
      'end': end if end.endswith(tuple(ends)) else end + self._hf.eos_token,
    }

  def jinja(self) -> str:
    """A template for exported tokenizers: the text of training, begin and end."""
    adds_bos = self.tokenizer and self.tokenizer.bos_id is not None
    bos = '{{ bos_token }}' if adds_bos else ''
    if self._template:
      template, after = self._hf.get_chat_template(), self._parts[2]
      if (self.samples()[1] or '').startswith(self._hf.bos_token or ' '):
        bos = ''
      end = self.described()['end']
      if after == end and not bos:
        return template
      after, end = json.dumps(after), json.dumps(end)
      text = f'text.removesuffix({after}).removesuffix({end}) + {end}'
      text += " if messages[-1]['role'] == 'assistant' else text"
      return f'{{% set text %}}{template}{{% endset %}}{bos}{{{{ {text} }}}}'
    # A Jinja literal has the escapes of JSON.
    before, _, after = map(
      json.dumps, self.prompt_template.partition('{prompt}')
    )
    text = "message['content']"
    return (
      bos + "{% for message in messages %}{% if message['role'] == 'user' %}"
      f'{{{{ {before} + {text} + {after} }}}}'
      f'{{% elif loop.last %}}{{{{ {text} + eos_token }}}}'
      f'{{% else %}}{{{{ {text} + "\\n" }}}}{{% endif %}}{{% endfor %}}'
    )


def _joined(messages: list[dict]) -> list[dict]:
  """Turns that alternate: a system turn and one of the same role go before."""
  turns = []
  for message in messages:
    last = turns[-1] if turns else {}
    if last.get('role') in ('system', message['role']) and (
      message['role'] in ('user', 'assistant')
    ):
      text = f'{last["content"]}\n\n{message["content"]}'
      turns[-1] = message | {'content': text}
    else:
      turns.append(message)
  return turns


def judge_chat(
  tokenizer: tokenizer_lib.Tokenizer,
  source: str,
  hf_config: dict[str, Any],
  style: str = '',
  template: str = '',
  append_eos: str = '',
) -> Chat:
  """How a reward model reads text: as config.json says, or its chat template.

  Our exports say it. For others `Chat` writes what transformers' template
  writes, to the letter, and an end of sequence is added to plain text only. The
  last three arguments say otherwise: 'chat' or 'plain'; a text with '{prompt}',
  or the file of a chat template (which `tokenizer` has); 'true' or 'false'.
  """
  said = hf_config.get('text_format') or {}
  is_ours = 'prompt_template' in hf_config and not is_file(template)
  frame = hf_config.get('prompt_template') or '{prompt}'
  errors.need(
    isinstance(said, dict)
    and said.get('style', '') in ('', 'chat', 'plain')
    and isinstance(frame, str)
    and '{prompt}' in frame,
    f'{source}: config.json: prompt_template={frame!r} and text_format={said!r} '
    "are not what warm writes ('{prompt}' has to be in the first); correct or "
    'remove them',
  )
  if is_file(template):
    style = style or 'chat'
  elif template:
    style, frame = style or 'plain', template
  if not style:
    usual = '' if is_ours or not tokenizer.hf.chat_template else 'chat'
    style = said.get('style', usual)
  errors.need(
    style != 'chat' or tokenizer.hf.chat_template,
    f'{source} has no chat template; name a file that holds one',
  )
  is_exact = style == 'chat' and not is_ours
  appends = append_eos == 'true' if append_eos else not is_exact
  tokenizer = dataclasses.replace(
    tokenizer,
    appends_eos=appends,
    bos_id=None if is_exact else tokenizer.bos_id,
  )
  return Chat(tokenizer, frame, style, is_exact)


def is_file(template: str) -> bool:
  """Whether a template is the path of a chat template, not a text for prompts."""
  if not template or '{prompt}' in template:
    return False
  found = pathlib.Path(template).expanduser().is_file()
  wrong = f'the template {template!r} has no {{prompt}} in it, nor is it a file'
  errors.need(found, wrong)
  return True


def _pinned_template(hf) -> str:
  try:
    template = hf.get_chat_template()
  except ValueError as error:  # several, none of them the default
    raise errors.UserError(f'tokenizer: {error}') from error
  text = f'tokenizer: chat_template is {template!r}, not text; correct it in '
  errors.need(isinstance(template, str), f'{text}tokenizer_config.json')
  if 'strftime_now' not in template:
    return template
  # A macro, because transformers hands no function to a template.
  letters = [*(f'-{c}' for c in 'dmHIMSj'), *'aAbBcdfHIjmMpSUwWxXyYzZ']
  steps = ''.join(
    f" | replace('%{c}', {json.dumps(_DATE.strftime(f'%{c}'))})"
    for c in letters
  )
  macro = '{%- macro strftime_now(format) -%}{{ format'
  return f'{macro}{steps} }}}}{{%- endmacro -%}}{template}'


# What begins a turn of the user, and one of the assistant. Line breaks behind
# it are the prompt's, a space is the response's.
STYLES = [
  (re.compile(user, re.MULTILINE), re.compile(rf'{answer}\n*', re.MULTILINE))
  for user, answer in (
    (r'^ *(?:Human|User|USER):', r'^ *(?:Assistant|ASSISTANT|AI|Bot|GPT):'),
    (r'^\*\*(?:Human|User):?\*\*:?', r'^\*\*(?:Assistant|AI):?\*\*:?'),
    (
      r'^#+ *(?:Instruction|Input|User|Human|Question|Prompt):?',
      r'^#+ *(?:Response|Assistant|Answer|Output):?',
    ),
    (r'^Q(?:uestion)?:', r'^A(?:nswer)?:'),
    (r'^(?:Instruction|Prompt):', r'^(?:Response|Output|Answer):'),
    (r'^(?:SUBREDDIT|TITLE|POST):', r'^TL;DR:'),
    (r'USER:', r'ASSISTANT:'),  # on one line
    (r'(?:#+ *)?(?:User|Human):', r'(?:#+ *)?Assistant:'),
    (r'\[INST\]', r'\[/INST\]'),
    (r'<\|im_start\|>user', r'<\|im_start\|>assistant'),
    (r'<\|(?:user|prompter)\|>', r'<\|assistant\|>'),
    (r'<start_of_turn>user', r'<start_of_turn>model'),
    (
      r'<\|start_header_id\|>user<\|end_header_id\|>',
      r'<\|start_header_id\|>assistant<\|end_header_id\|>',
    ),
  )
]
# Of a turn, maybe. In a list, in brackets or as a tag only a name that is sure.
_SURE = r'(?:human|user|prompter|assistant|bot|chatbot|gpt|ai)'
_LABEL = re.compile(
  r'^(?:\[\d[\d:. ]*\])?[ #*]{0,9}(\w[\w ]{0,20}\**[:：](?!//)|'
  rf'[-<\[] ?{_SURE}[>\]:]+|<\|start_of_role\|>\w+|Q\. |(?<!:\n)A\. )',
  re.M | re.I,
)


def last_border(text: str) -> tuple[int, Any]:
  """Where the last turn of the assistant begins, and the style; 0: nowhere."""
  ends = [(0, -1)]
  for number, (user, answer) in enumerate(STYLES):
    if user.search(text):
      ends += [(found.end(), -number) for found in answer.finditer(text)]
  end, number = max(ends)
  return end, STYLES[-number] if end else None


def turns_of(prompt: str, text: str, style) -> list[tuple[str, str]]:
  """Prompt and response of each turn of the assistant in a text."""
  turns, begin = [], 0
  while style and (user := style[0].search(text, begin)):
    # An empty line stands between turns.
    answered = text[begin : user.start()].removesuffix('\n').removesuffix('\n')
    turns.append((prompt + text[:begin], answered))
    answer = style[1].search(text, user.end())
    begin = answer.end() if answer else len(text)
  turns.append((prompt + text[:begin], text[begin:]))
  return [turn for turn in turns if turn[1].strip()]


def common_beginning(*texts: str) -> tuple[int, Any]:
  """Where the prompt of texts ends, and their style; None: no dialogue.

  It is cut at a border of turns, else of words. A single space before the
  responses belongs to them, as tokenizers want it; line breaks belong to the
  prompt. One text alone has none. A BadRow says why there is no prompt.
  """
  if len(texts) == 1:
    return 0, None
  if len(set(texts)) == 1:
    raise BadRow('chosen and rejected are the same text')
  # Each response keeps a character: one text may continue another.
  least = min(len(text.rstrip()) for text in texts) - 1
  shared = texts[0][: max(min(num_common(*texts), least), 0)]
  end, style = last_border(shared)
  if style is not None:
    return end, style
  if all(last_border(text)[0] for text in texts):
    raise BadRow('the prompts of chosen and rejected differ')
  labels = list(dict.fromkeys(_LABEL.findall(shared)))
  if len(labels) > 1 and shared.count('\n') >= len(labels) - 1:
    names = ' and '.join(f"'{label.rstrip()}'" for label in labels[:2])
    raise BadRow(
      f'a dialogue of turns {names}, whose last turn is not known to be the '
      "answer: put what comes before the answers into a field 'prompt'"
    )
  end = max((i for i, c in enumerate(shared, 1) if c.isspace()), default=0)
  if end == 0:  # no word ends in it (or a script that writes no spaces)
    end = len(shared)
  elif shared[end - 1] == ' ':
    end -= 1
  if not end:
    raise BadRow(
      "no 'prompt', and chosen and rejected share no beginning (an empty "
      'prompt has to be given as one)'
    )
  return end, None


def without(prompt: str, answers: list[str], is_usual: bool) -> list[str]:
  """The answers without the prompt, if all of them repeat it; else themselves.

  The line breaks behind it go with it; a space stays. A prompt of up to four
  words is cut where that `is_usual` in the file: an answer may begin with it.
  """
  start, cut = prompt.strip(), []
  opens = last_border(start)[0] == len(start)
  is_sure = is_usual or opens or len(start.split()) > 4
  for text in (answer.lstrip() for answer in answers):
    rest = text[len(start) :]
    if is_sure and text.startswith(start) and (opens or rest[:1].isspace()):
      cut.append(rest.lstrip('\n'))
      continue
    for user, assistant in STYLES:  # the first turn of a dialogue
      begin = user.match(text)
      asked = text[begin.end() :].lstrip() if begin else ''
      rest = asked[len(start) :].lstrip()
      border = assistant.match(rest)
      if begin and border and asked.startswith(start):
        cut.append(rest[border.end() :])
        break
  is_repeated = len(cut) == len(answers) and all(rest.strip() for rest in cut)
  return cut if start and cut and is_repeated else answers


def num_common(*rows) -> int:
  """Entries that texts or lists have in common at their beginning."""
  differ = (i for i, x in enumerate(zip(*rows)) if x.count(x[0]) < len(x))
  return next(differ, min(map(len, rows)))
