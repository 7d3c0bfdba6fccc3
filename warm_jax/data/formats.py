# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The formats of rows that users bring, each turned into one internal form.

  preferences  prompt + chosen + rejected: texts, or lists of {role, content};
               chosen and rejected may also be lists of texts (all pairs)
               chosen + rejected: the prompt is their common beginning
               context + completions: [{rank, completion}], rank 0 the best
               margin: optional, how much better the chosen one is
  responses    prompt + completion (or response), messages, text
  prompts      any of these: what comes before the response

Pure functions of one row (a dict) and a `chat.Chat`, which says how prompts and
conversations are written. Further fields of a row do not matter; None is the
same as an absent field.
"""

import itertools
from typing import Any

import numpy as np

from warm_jax.data import chat as chat_lib
from warm_jax.data import rejects

BadRow = rejects.BadRow

MOST_PAIRS = 10_000  # of one row; lists of a thousand texts make a million
MOST_CHARACTERS = 2**20  # of one text; tokenising takes 200 bytes for each
_LARGEST = float(np.finfo(np.float32).max)

PREFERENCES = (
  'prompt + chosen + rejected; chosen + rejected with a common beginning; '
  'context + completions [{rank, completion}]; texts or lists of '
  '{role, content}'
)
RESPONSES = 'prompt + completion (or response); messages; text'
PROMPTS = 'prompt; messages; or any format of preferences'

# Turns of dialogues written as one text: the response follows the last of them.
TURN_BORDERS = ('\n\nAssistant:',)


def preference_rows(row: Any, chat: chat_lib.Chat) -> list[dict]:
  """Pairs of one row: dicts of prompt, chosen, rejected and perhaps margin.

  Raises:
    BadRow: the row cannot be used; says why.
  """
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
    for name, text in (('chosen', chosen), ('rejected', rejected)):
      if not text.strip():
        raise BadRow(f'{name!r} is empty')
    if chosen.strip() == rejected.strip():
      raise BadRow('chosen and rejected are the same text')
    pair = {'prompt': prompt, 'chosen': chosen, 'rejected': rejected}
    made.append(pair if margin is None else pair | {'margin': margin})
  return made


def response_row(row: Any, chat: chat_lib.Chat) -> dict:
  """Prompt and response of one row of supervised fine-tuning.

  Of a conversation the last turn is the response. A bare `text` is all
  response: its prompt is empty.

  Raises:
    BadRow: the row cannot be used; says why.
  """
  row = _fields(row)
  field = next((f for f in ('completion', 'response') if f in row), None)
  if field and 'prompt' in row:
    prompt, response = _answer(row['prompt'], row[field], field, chat)
  elif 'messages' in row:
    turns = _messages(row['messages'], 'messages')
    prompt, response = _split(turns[:-1], turns[-1:], 'messages', chat)
  elif 'text' in row:
    prompt, response = '', _text(row['text'], 'text').rstrip()
  elif field:
    raise BadRow("'prompt' is missing")
  else:
    told = 'no completion beside the prompt' if 'prompt' in row else ''
    raise _unknown(row, told)
  if not response.strip():
    raise BadRow('the response is empty')
  return {'prompt': prompt, 'response': response}


def prompt_row(row: Any, chat: chat_lib.Chat) -> dict:
  """The prompt of one row of any format that has one.

  Raises:
    BadRow: the row has none, or cannot be used; says why.
  """
  row = _fields(row)
  if 'prompt' in row:
    prompt = row['prompt']
  elif 'messages' in row:
    prompt = _messages(row['messages'], 'messages')
    if prompt[-1]['role'] == 'assistant':
      prompt = prompt[:-1]
      _check_prompt(prompt, 'messages')
  elif 'context' in row:
    prompt = row['context']
  elif 'chosen' in row:
    prompt = preference_rows(row, chat)[0]['prompt']
    return {'prompt': prompt}
  else:
    raise _unknown(row)
  if _is_conversation(prompt):
    turns = _messages(prompt, 'prompt')
    _check_prompt(turns, 'prompt')
    text = chat.prompt(turns)
  else:
    text = chat.frame(_text(prompt, 'prompt'))
  if not text.strip():
    raise BadRow('the prompt is empty')
  return {'prompt': text}


# ---------------------------------------------------------------------------
# Preferences
# ---------------------------------------------------------------------------


def _chosen_and_rejected(row: dict, chat: chat_lib.Chat):
  for field in ('chosen', 'rejected'):
    if field not in row:
      raise BadRow(f'{field!r} is missing')
  chosen, rejected, prompt = row['chosen'], row['rejected'], row.get('prompt')
  if _is_texts(chosen) and _is_texts(rejected):
    _check_number(len(chosen) * len(rejected))
    sides = itertools.product(chosen, rejected)
  else:
    sides = [(chosen, rejected)]
  for chosen, rejected in sides:
    if _is_conversation(chosen) != _is_conversation(rejected):
      raise BadRow(
        'one of chosen and rejected is a text, the other a conversation'
      )
    if not _is_conversation(chosen):
      yield _texts(prompt, chosen, rejected, chat)
    else:
      yield _conversations(prompt, chosen, rejected, chat)


def _texts(prompt, chosen, rejected, chat):
  """Plain responses to a prompt that is given, or their common beginning."""
  if prompt is not None:
    shared, chosen = _answer(prompt, chosen, 'chosen', chat)
    return shared, chosen, _answer(prompt, rejected, 'rejected', chat)[1]
  chosen, rejected = _text(chosen, 'chosen'), _text(rejected, 'rejected')
  cut = _common_beginning(chosen, rejected)
  if not cut:
    raise BadRow(
      "no 'prompt', and chosen and rejected share no beginning (an empty "
      'prompt has to be given as one)'
    )
  return chosen[:cut], chosen[cut:].rstrip(), rejected[cut:].rstrip()


def _common_beginning(chosen: str, rejected: str) -> int:
  """Length of the implicit prompt: cut at a border of turns, else of words.

  A single space before the first word of the responses goes to them, as
  tokenizers want it; line breaks stay with the prompt.
  """
  if chosen.strip() == rejected.strip():
    raise BadRow('chosen and rejected are the same text')
  # Both responses keep a character: one text may continue the other.
  least = min(len(chosen.rstrip()), len(rejected.rstrip())) - 1
  end = next(
    (i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), least
  )
  end = max(min(end, least), 0)
  shared = chosen[:end]
  for border in TURN_BORDERS:
    found = shared.rfind(border)
    if found >= 0:
      return found + len(border)
    if border in chosen or border in rejected:
      raise BadRow('the prompts of chosen and rejected differ')
  last = max((i for i, c in enumerate(shared) if c.isspace()), default=None)
  if last is None:
    return end  # no word ends in it (or a script that writes no spaces)
  return last if shared[last] == ' ' else last + 1


def _conversations(prompt, chosen, rejected, chat):
  """Turns after a prompt that is given, or after their common beginning."""
  sides = _messages(chosen, 'chosen'), _messages(rejected, 'rejected')
  if isinstance(prompt, str) and all(
    side[0]['role'] == 'assistant' for side in sides
  ):
    prompt = [{'role': 'user', 'content': _text(prompt, 'prompt')}]
  if prompt is None or isinstance(prompt, str):
    # A prompt beside whole conversations repeats their first turns.
    shared = _common_turns(*sides)
    prompt, sides = sides[0][:shared], [side[shared:] for side in sides]
  else:
    prompt = _messages(prompt, 'prompt')
    sides = [
      side[len(prompt) :] if side[: len(prompt)] == prompt else side
      for side in sides
    ]
  heads, texts = zip(
    *(
      _split(prompt, side, name, chat)
      for side, name in zip(sides, ('chosen', 'rejected'))
    )
  )
  return heads[0], *texts


def _common_turns(chosen: list[dict], rejected: list[dict]) -> int:
  """Number of turns that belong to the implicit prompt."""
  if chosen == rejected:
    raise BadRow('chosen and rejected are the same text')
  least = min(len(chosen), len(rejected)) - 1
  pairs = enumerate(zip(chosen, rejected))
  shared = next((i for i, (a, b) in pairs if a != b), least)
  shared = min(shared, least)  # one conversation may continue the other
  if shared and not (
    chosen[shared]['role'] == rejected[shared]['role'] == 'assistant'
  ):
    raise BadRow(
      f'the prompts of chosen and rejected differ, in turn {shared + 1}'
    )
  return shared


def _ranked(row: dict, chat: chat_lib.Chat):
  """All pairs of different rank among completions to one context."""
  if 'context' not in row:
    raise BadRow("'context' is missing")
  given = _unzipped(row['completions'])
  if not isinstance(given, list) or not all(isinstance(c, dict) for c in given):
    raise BadRow("'completions' is not a list of {rank, completion}")
  _check_number(len(given) * (len(given) - 1) // 2)
  ranked = []
  for number, one in enumerate(given, 1):
    rank = one.get('rank')
    if isinstance(rank, bool) or not isinstance(rank, int):
      raise BadRow(f'the rank of completion {number} is not a whole number')
    if one.get('completion') is None:
      raise BadRow(f'completion {number} is missing')
    answer = _answer(
      row['context'], one['completion'], f'completion {number}', chat
    )
    ranked.append((rank, *answer))
  if len({rank for rank, _, _ in ranked}) < 2:
    raise BadRow('no two completions of different rank')
  ranked.sort(key=lambda one: one[0])
  for better, worse in itertools.combinations(ranked, 2):
    if better[0] < worse[0]:
      yield better[1], better[2], worse[2]


def _check_number(pairs: int) -> None:
  if pairs > MOST_PAIRS:
    raise BadRow(f'it makes {pairs} pairs, more than {MOST_PAIRS}')


def _margin(row: dict) -> float | None:
  margin = row.get('margin')
  if margin is None:
    return None
  if isinstance(margin, bool) or not isinstance(margin, (int, float)):
    raise BadRow(f"'margin' is {_kind(margin)}, not a number")
  if not abs(margin) <= _LARGEST:  # nor NaN
    raise BadRow(f"'margin' is {margin}, no number of 32 bits")
  return float(margin)


# ---------------------------------------------------------------------------
# Texts and turns
# ---------------------------------------------------------------------------


def _answer(prompt, response, field: str, chat: chat_lib.Chat):
  """Texts of a prompt and of one response to it, each plain or in turns."""
  if _is_conversation(prompt) or _is_conversation(response):
    name = 'prompt'
    if not _is_conversation(prompt):
      prompt = [{'role': 'user', 'content': _text(prompt, name)}]
    if not _is_conversation(response):
      response = [{'role': 'assistant', 'content': _text(response, field)}]
    turns = _messages(prompt, name), _messages(response, field)
    return _split(*turns, field, chat)
  framed = chat.frame(_text(prompt, 'prompt'))
  return framed, chat.response(_text(response, field))


def _split(prompt, response, field: str, chat: chat_lib.Chat):
  if not response:
    raise BadRow(f'{field!r} adds no turn to the prompt')
  if response[0]['role'] != 'assistant' or response[-1]['role'] != 'assistant':
    wrong = response[0 if response[0]['role'] != 'assistant' else -1]['role']
    raise BadRow(
      f'{field!r} has to begin and end with a turn of the assistant, not of '
      f'{wrong!r}'
    )
  if not response[-1]['content'].strip():
    raise BadRow(f'{field!r} is empty')
  _check_prompt(prompt, field)
  return chat.split(prompt, response)


def _check_prompt(turns: list[dict], field: str) -> None:
  if not turns:
    raise BadRow(f'{field!r} has no turn before the response')
  if turns[-1]['role'] == 'assistant':
    raise BadRow('the prompt ends with a turn of the assistant')
  if any(turn['role'] == 'system' for turn in turns[1:]):
    raise BadRow('a system turn stands after the first turn')


def _messages(value, field: str) -> list[dict]:
  """Turns as {role, content} alone; checks each."""
  value = _unzipped(value)
  if not isinstance(value, list) or not value:
    raise BadRow(f'{field!r} is {_kind(value)}, not a list of turns')
  turns = []
  for number, turn in enumerate(value, 1):
    where = f'turn {number} of {field!r}'
    if not isinstance(turn, dict):
      raise BadRow(f'{where} is {_kind(turn)}, not {{role, content}}')
    for key in ('role', 'content'):
      if not isinstance(turn.get(key), str):
        raise BadRow(f'{where} has no text as its {key}')
    if turn.get('tool_calls'):
      raise BadRow(f'{where} calls tools, which is not supported')
    _text(turn['role'], f'the role of {where}')
    _text(turn['content'], where)
    turns.append({'role': turn['role'], 'content': turn['content']})
  return turns


def _unzipped(value):
  """TFDS gives a list of dicts as a dict of lists."""
  if isinstance(value, dict) and value:
    columns = list(value.values())
    if all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
      return [dict(zip(value, entries)) for entries in zip(*columns)]
  return value


def _is_conversation(value) -> bool:
  return isinstance(value, (list, dict)) and not _is_texts(value)


def _is_texts(value) -> bool:
  return (
    isinstance(value, list)
    and bool(value)
    and all(isinstance(text, str) for text in value)
  )


def _text(value, field: str) -> str:
  if not isinstance(value, str):
    raise BadRow(f'{field!r} is {_kind(value)}, not text')
  if len(value) > MOST_CHARACTERS:
    raise BadRow(
      f'{field!r} has {len(value)} characters, more than {MOST_CHARACTERS}'
    )
  try:
    value.encode()
  except UnicodeEncodeError:  # JSON can spell half a character: "\ud800"
    raise BadRow(f'{field!r} holds half a character') from None
  return value


def _kind(value) -> str:
  names = {
    **{dict: 'an object', list: 'a list', str: 'text', bool: 'true or false'},
    **{int: 'a number', float: 'a number', type(None): 'missing'},
  }
  return names.get(type(value), type(value).__name__)


def _fields(row) -> dict:
  if not isinstance(row, dict):
    raise BadRow(f'the row is {_kind(row)}, not an object')
  return {key: value for key, value in row.items() if value is not None}


def _unknown(row: dict, told: str = '') -> rejects.UnknownFormat:
  names = ', '.join(sorted(map(str, row))[:12]) or 'none'
  return rejects.UnknownFormat(
    f'{told or "in no known format"}; its fields: {names}'
  )
