# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The formats of rows that users bring, each turned into one internal form.

  preferences  prompt + chosen + rejected: texts, or lists of {role, content};
               chosen and rejected may also be lists of texts (all pairs)
               chosen + rejected: the prompt is their common beginning
               context + completions: [{rank, completion}], rank 0 the best
               margin: optional, how much better the chosen one is
  responses    prompt + completion (or response), messages, text
  prompts      any of these: what comes before the response

Functions of one row and a `Chat`; a `BadRow` says why a row cannot be used. A
field that is None is absent; other fields are ignored.
"""

import datetime
import itertools
import json
from typing import Any

import numpy as np

from warm_jax import errors
from warm_jax.data import sources
from warm_jax.data import tokenizer as tokenizer_lib

BadRow = sources.BadRow

MOST_PAIRS = 10_000  # of one row; lists of a thousand texts make a million
MOST_CHARACTERS = 2**20  # of one text; tokenising takes 200 bytes for each

# In dialogues written as one text the response follows the last of these.
TURN_BORDER = '\n\nAssistant:'

# Templates that write the date would make a reward depend on the day. This day
# is the default of the Llama 3 templates.
_DATE = datetime.datetime(2024, 7, 26)

# What messages call a value of JSON.
_KINDS = {dict: 'an object', list: 'a list', str: 'text', int: 'a number'}
_KINDS |= {float: 'a number', bool: 'true or false', type(None): 'missing'}


def preference_rows(row: Any, chat: 'Chat') -> list[dict]:
  """Pairs of one row: dicts of prompt, chosen, rejected and perhaps margin."""
  row = _fields(row)
  margin = _margin(row)
  if 'chosen' in row or 'rejected' in row:
    pairs = _chosen_and_rejected(row, chat)
  elif 'completions' in row:
    pairs = _ranked(row, chat)
  else:
    raise _unknown(row)
  made = []
  for prompt, chosen, rejected in pairs:
    _need(chosen.strip(), "'chosen' is empty")
    _need(rejected.strip(), "'rejected' is empty")
    _need_different(chosen.strip(), rejected.strip())
    pair = {'prompt': prompt, 'chosen': chosen, 'rejected': rejected}
    made.append(pair | margin)
  return made


def response_row(row: Any, chat: 'Chat') -> dict:
  """Prompt and response of a row; a bare `text` answers an empty prompt."""
  row = _fields(row)
  field = 'completion' if 'completion' in row else 'response'
  if field in row and 'prompt' in row:
    prompt, response = _answer(row['prompt'], row[field], field, chat)
  elif 'messages' in row:
    turns = _messages(row['messages'], 'messages')
    prompt, response = _split(turns[:-1], turns[-1:], 'messages', chat)
  elif 'text' in row:
    prompt, response = '', _text(row['text'], 'text').rstrip()
  else:
    _need(field not in row, "'prompt' is missing")
    raise _unknown(row)
  _need(response.strip(), 'the response is empty')
  return {'prompt': prompt, 'response': response}


def prompt_row(row: Any, chat: 'Chat') -> dict:
  """The prompt of one row of any format that has one."""
  row = _fields(row)
  fields = (f for f in ('prompt', 'messages', 'context') if f in row)
  field = next(fields, '')
  if not field and 'chosen' in row:
    return {'prompt': preference_rows(row, chat)[0]['prompt']}
  if not field:
    raise _unknown(row)
  if field == 'messages' or _is_conversation(row[field]):
    turns = _messages(row[field], field)
    if field == 'messages' and turns[-1]['role'] == 'assistant':
      turns = turns[:-1]
    _check_prompt(turns, field)
    text = chat.prompt(turns)
  else:
    text = chat.frame(_text(row[field], field))
  _need(text.strip(), 'the prompt is empty')
  return {'prompt': text}


# What the rows of a file may be: the formats known, and the items of a row.
KINDS = {
  'pairs': (
    'prompt + chosen + rejected; chosen + rejected with a common beginning; '
    'context + completions [{rank, completion}]; texts or lists of '
    '{role, content}',
    preference_rows,
  ),
  'prompts': (
    'prompt; messages; or any format of preferences',
    lambda *row: [prompt_row(*row)],
  ),
  'responses': (
    'prompt + completion (or response); messages; text',
    lambda *row: [response_row(*row)],
  ),
}


def flip_mask(num_rows: int, fraction: float, seed: int) -> np.ndarray:
  """Chooses the labels that are swapped: [N] bool, round(fraction N) True.

  A function of its arguments alone: averaging over members must not average
  over different noise (WARM section 4.2 swaps 25 % once).
  """
  mask = np.zeros(num_rows, bool)
  order = np.random.default_rng(seed).permutation(num_rows)
  mask[order[: round(fraction * num_rows)]] = True
  return mask


def labelled(pair: dict, flip: bool) -> dict:
  """A pair with `flipped`, and with its sides exchanged if flip."""
  sides = ('rejected', 'chosen') if flip else ('chosen', 'rejected')
  chosen, rejected = (pair[side] for side in sides)
  return pair | {'chosen': chosen, 'rejected': rejected, 'flipped': bool(flip)}


def _chosen_and_rejected(row: dict, chat):
  for field in ('chosen', 'rejected'):
    _need(field in row, f'{field!r} is missing')
  prompt, sides = row.get('prompt'), [(row['chosen'], row['rejected'])]
  if prompt is None and not _is_conversation(row['chosen']):
    for field in ('question', 'instruction', 'query', 'input'):
      is_text = isinstance(row.get(field), str) and row[field].strip()
      advice = f"no 'prompt', but a field {field!r}: rename it to 'prompt'"
      _need(not is_text, advice)
  if all(map(_is_texts, sides[0])):
    _check_number(len(row['chosen']) * len(row['rejected']))
    sides = itertools.product(*sides[0])
  for chosen, rejected in sides:
    _need(
      _is_conversation(chosen) == _is_conversation(rejected),
      'one of chosen and rejected is a text, the other a conversation',
    )
    if _is_conversation(chosen):
      yield _conversations(prompt, chosen, rejected, chat)
    elif prompt is not None:
      shared, chosen = _answer(prompt, chosen, 'chosen', chat)
      yield shared, chosen, _answer(prompt, rejected, 'rejected', chat)[1]
    else:
      chosen, rejected = _text(chosen, 'chosen'), _text(rejected, 'rejected')
      cut = _common_beginning(chosen, rejected)
      yield chosen[:cut], chosen[cut:].rstrip(), rejected[cut:].rstrip()


def _common_beginning(chosen: str, rejected: str) -> int:
  # Cut at a border of turns, else of words. A single space before the responses
  # belongs to them, as tokenizers want it; line breaks belong to the prompt.
  _need_different(chosen.strip(), rejected.strip())
  # Both responses keep a character: one text may continue the other.
  least = min(len(chosen.rstrip()), len(rejected.rstrip())) - 1
  shared = chosen[: max(min(_num_common(chosen, rejected), least), 0)]
  found = shared.rfind(TURN_BORDER)
  if found >= 0:
    return found + len(TURN_BORDER)
  _need(
    TURN_BORDER not in chosen and TURN_BORDER not in rejected,
    'the prompts of chosen and rejected differ',
  )
  end = max((i for i, c in enumerate(shared, 1) if c.isspace()), default=0)
  if end == 0:  # no word ends in it (or a script that writes no spaces)
    end = len(shared)
  elif shared[end - 1] == ' ':
    end -= 1
  _need(
    end,
    "no 'prompt', and chosen and rejected share no beginning (an empty prompt "
    'has to be given as one)',
  )
  return end


def _conversations(prompt, chosen, rejected, chat):
  sides = [_messages(chosen, 'chosen'), _messages(rejected, 'rejected')]
  if isinstance(prompt, str):
    answers = all(side[0]['role'] == 'assistant' for side in sides)
    # A prompt beside whole conversations repeats their first turns.
    prompt = _turns(prompt, 'prompt', 'user') if answers else None
  if prompt is None:
    _need_different(*sides)
    # One of them may continue the other.
    shared = min(_num_common(*sides), *(len(side) - 1 for side in sides))
    _need(
      not shared or all(s[shared]['role'] == 'assistant' for s in sides),
      f'the prompts of chosen and rejected differ, in turn {shared + 1}',
    )
    prompt = sides[0][:shared]
  else:
    prompt = _messages(prompt, 'prompt')
  size = len(prompt)
  sides = [s[size:] if s[:size] == prompt else s for s in sides]
  head, chosen = _split(prompt, sides[0], 'chosen', chat)
  return head, chosen, _split(prompt, sides[1], 'rejected', chat)[1]


def _num_common(a, b) -> int:
  differ = (i for i, (x, y) in enumerate(zip(a, b)) if x != y)
  return next(differ, min(len(a), len(b)))


def _ranked(row: dict, chat):
  _need('context' in row, "'context' is missing")
  given = _unzipped(row['completions'])
  _need(
    isinstance(given, list) and all(isinstance(c, dict) for c in given),
    "'completions' is not a list of {rank, completion}",
  )
  _check_number(len(given) * (len(given) - 1) // 2)
  ranked = []
  for number, one in enumerate(given, 1):
    rank, name = one.get('rank'), f'completion {number}'
    _need(type(rank) is int, f'the rank of {name} is not a whole number')
    answer = _answer(row['context'], one.get('completion'), name, chat)
    ranked.append((rank, *answer))
  ranked.sort(key=lambda one: one[0])
  pairs = [
    (prompt, chosen, rejected)
    for (a, prompt, chosen), (b, _, rejected) in itertools.combinations(
      ranked, 2
    )
    if a < b
  ]
  _need(pairs, 'no two completions of different rank')
  return pairs


def _check_number(pairs: int) -> None:
  _need(pairs <= MOST_PAIRS, f'it makes {pairs} pairs, more than {MOST_PAIRS}')


def _need_different(chosen, rejected) -> None:
  _need(chosen != rejected, 'chosen and rejected are the same text')


def _margin(row: dict) -> dict[str, float]:
  margin = row.get('margin')
  if margin is None:
    return {}
  is_number = type(margin) in (int, float)
  _need(is_number, f"'margin' is {_kind(margin)}, not a number")
  fits = abs(margin) <= np.finfo(np.float32).max.item()  # nor NaN
  _need(fits, f"'margin' is {margin}, no number of 32 bits")
  return {'margin': float(margin)}


def _need(fine: object, reason: str) -> None:
  if not fine:
    raise BadRow(reason)


def _answer(prompt, response, field: str, chat):
  if _is_conversation(prompt) or _is_conversation(response):
    turns = _turns(prompt, 'prompt', 'user')
    return _split(turns, _turns(response, field, 'assistant'), field, chat)
  framed = chat.frame(_text(prompt, 'prompt'))
  return framed, chat.response(_text(response, field))


def _split(prompt, response, field: str, chat):
  _need(response, f'{field!r} adds no turn to the prompt')
  for turn in (response[0], response[-1]):
    _need(
      turn['role'] == 'assistant',
      f'{field!r} has to begin and end with a turn of the assistant, not of '
      f'{turn["role"]!r}',
    )
  _need(response[-1]['content'].strip(), f'{field!r} is empty')
  _check_prompt(prompt, field)
  return chat.split(prompt, response)


def _check_prompt(turns: list[dict], field: str) -> None:
  _need(turns, f'{field!r} has no turn before the response')
  is_open = turns[-1]['role'] != 'assistant'
  _need(is_open, 'the prompt ends with a turn of the assistant')
  is_late = any(turn['role'] == 'system' for turn in turns[1:])
  _need(not is_late, 'a system turn stands after the first turn')


def _turns(value, field: str, role: str) -> list[dict]:
  if _is_conversation(value):
    return _messages(value, field)
  return [{'role': role, 'content': _text(value, field)}]


def _messages(value, field: str) -> list[dict]:
  value = _unzipped(value)
  is_list = isinstance(value, list) and value
  _need(is_list, f'{field!r} is {_kind(value)}, not a list of turns')
  turns = []
  for number, turn in enumerate(value, 1):
    where = f'turn {number} of {field!r}'
    is_turn = isinstance(turn, dict)
    _need(is_turn, f'{where} is {_kind(turn)}, not {{role, content}}')
    calls = turn.get('tool_calls')
    _need(not calls, f'{where} calls tools, which is not supported')
    keys = ('role', 'content')
    turns.append({k: _text(turn.get(k), f'the {k} of {where}') for k in keys})
  return turns


def _unzipped(value):
  # TFDS gives a list of dicts as a dict of lists.
  if isinstance(value, dict) and value:
    columns = list(value.values())
    if all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
      return [dict(zip(value, entries)) for entries in zip(*columns)]
  return value


def _is_conversation(value) -> bool:
  return isinstance(value, (list, dict)) and not _is_texts(value)


def _is_texts(value) -> bool:
  is_list = isinstance(value, list) and bool(value)
  return is_list and all(isinstance(text, str) for text in value)


def _text(value, name: str) -> str:
  name = name if ' ' in name else repr(name)
  _need(isinstance(value, str), f'{name} is {_kind(value)}, not text')
  size, most = len(value), MOST_CHARACTERS
  _need(size <= most, f'{name} has {size} characters, more than {most}')
  try:
    value.encode()
  except UnicodeEncodeError:  # JSON can spell half a character: "\ud800"
    raise BadRow(f'{name} holds half a character') from None
  return value


def _kind(value) -> str:
  return _KINDS.get(type(value), type(value).__name__)


def _fields(row) -> dict:
  _need(isinstance(row, dict), f'the row is {_kind(row)}, not an object')
  return {key: value for key, value in row.items() if value is not None}


def _unknown(row: dict) -> sources.UnknownFormat:
  names = ', '.join(sorted(map(str, row))[:12]) or 'none'
  return sources.UnknownFormat(f'in no known format; its fields: {names}')


class Chat:
  """Writes prompts and conversations as text.

  A prompt in a field of its own is put into `prompt_template`; the common
  beginning of two texts is left as it is; a conversation is rendered by the
  tokenizer's chat template, or with user turns in `prompt_template` and others
  ending in a line break.
  """

  def __init__(
    self,
    tokenizer: tokenizer_lib.Tokenizer | None = None,
    prompt_template: str = '{prompt}',
  ):
    self._hf: Any = tokenizer.hf if tokenizer else None
    self._template: str | None = None
    self.prompt_template = prompt_template
    if self._hf is not None and self._hf.chat_template:
      self._template = _pinned_template(self._hf)

  def frame(self, prompt: str) -> str:
    """A plain prompt in its template, which decides on the space around it."""
    if self.prompt_template == '{prompt}':
      return prompt
    return self.prompt_template.replace('{prompt}', prompt.strip())

  def response(self, text: str) -> str:
    """A plain response, without the space around it that is not its own."""
    ends_in_space = self.prompt_template[-1:].isspace()
    return text.strip() if ends_in_space else text.rstrip()

  def prompt(self, messages: list[dict]) -> str:
    """Text of the turns of a prompt, up to where the response begins."""
    return self._render(messages, True)

  def split(self, prompt: list[dict], response: list[dict]) -> tuple[str, str]:
    """Texts of a conversation before and after the start of its response.

    The response ends before its end of sequence, which is added as a token, and
    what a template writes behind that. BadRow if it refuses or rewrites turns.
    """
    head, whole = self.prompt(prompt), self._render(prompt + response, False)
    _need(
      whole.startswith(head),
      'the chat template renders the prompt otherwise when a response follows',
    )
    text = whole[len(head) :].rstrip()
    if self._template and self._hf.eos_token:
      text = text.removesuffix(self._hf.eos_token)
    return head, text

  def _render(self, messages: list[dict], open_turn: bool) -> str:
    if self._template is None:
      return ''.join(
        self.frame(message['content'])
        if message['role'] == 'user'
        else self.response(message['content']) + '\n'
        for message in messages
      )
    try:
      return self._hf.apply_chat_template(
        messages,
        chat_template=self._template,
        tokenize=False,
        add_generation_prompt=open_turn,
        date_string=_DATE.strftime('%d %b %Y'),
      )
    # A template is a program, and raises what it likes.
    except Exception as error:
      reason = ' '.join(str(error).split())
      raise BadRow(f'the chat template refuses it: {reason}') from error

  def jinja(self) -> str:
    """The rendering without a chat template as one, for exported tokenizers."""
    # A Jinja literal has the escapes of JSON.
    before, _, after = map(
      json.dumps, self.prompt_template.partition('{prompt}')
    )
    prompt = response = "message['content']"
    if self.prompt_template != '{prompt}':
      prompt += '.strip()'
    ends_in_space = self.prompt_template[-1:].isspace()
    response += '.strip()' if ends_in_space else '.rstrip()'
    return (
      "{% for message in messages %}{% if message['role'] == 'user' %}"
      f'{{{{ {before} + {prompt} + {after} }}}}'
      f'{{% elif loop.last %}}{{{{ {response} + eos_token }}}}'
      f'{{% else %}}{{{{ {response} + "\\n" }}}}{{% endif %}}{{% endfor %}}'
    )


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
