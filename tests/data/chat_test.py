# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Chat templates: one begin, one end, no date, and borders that hold."""

import dataclasses
import datetime
import itertools
import json

import pytest

from warm_jax import errors
from warm_jax.data import chat as chat_lib
from warm_jax.data import formats, sources, tokenizer

pytestmark = pytest.mark.hf

# As in ChatML, with the tokens of the scratch tokenizer; a line break follows
# the end of every turn.
CHATML = (
  '{{ bos_token }}{% for m in messages %}'
  "{{ '[' + m['role'] + ']\n' + m['content'] + eos_token + '\n' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
)
TURNS = [{'role': 'user', 'content': 'the world'}]
ANSWER = [{'role': 'assistant', 'content': 'hello again'}]


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
  texts = ['hello world, hello again', '[user]\nthe world is wide'] * 20
  return tokenizer.train_bpe_tokenizer(
    texts, 300, tmp_path_factory.mktemp('bpe')
  )


def with_template(bare, template):
  """The tokenizer with a chat template of its own."""
  import transformers

  folder = bare.hf.name_or_path
  hf = transformers.AutoTokenizer.from_pretrained(folder)
  hf.chat_template = template
  return dataclasses.replace(bare, hf=hf)


@pytest.mark.parametrize(
  'template',
  [
    "{{ strftime_now('%d %b %Y') }}",
    "{% for m in [1] %}{{ strftime_now('%-d %b %Y') }}{% endfor %}",
    '{{ date_string }}',
    # The form of the Llama 3 templates.
    '{%- if not date_string is defined %}{%- set date_string = '
    "strftime_now('%d %b %Y') %}{%- endif %}{{ date_string }}",
  ],
)
def test_rows_do_not_depend_on_the_day(bare, template):
  chosen = with_template(bare, template + "{{ messages[0]['content'] }}")
  today = datetime.datetime.now().strftime('%d %b %Y')
  text = chat_lib.Chat(chosen).prompt(TURNS)
  assert text == '26 Jul 2024the world' and today not in text


def test_templates_that_rewrite_the_past_are_refused(bare):
  template = (
    '{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}'
  )
  with pytest.raises(sources.BadRow, match='renders the prompt otherwise'):
    chat_lib.Chat(with_template(bare, template)).split(TURNS, ANSWER)


def test_tools_calls_and_thoughts_reach_a_template_that_reads_them(bare):
  """Their text is what transformers writes for the same turns."""
  template = (
    '{% for t in tools or [] %}[{{ t.name }}]{% endfor %}{% for m in messages %}'
    "{{ m['role'] + ':' }}{% if m.reasoning_content %}({{ m.reasoning_content }})"
    "{% endif %}{{ m['content'] }}{% for c in m.tool_calls or [] %}"
    '<{{ c.function.name }}>{% endfor %}{{ eos_token }}{% endfor %}'
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
  )
  chosen, tools = with_template(bare, template), [{'name': 'add'}]
  calls = {'role': 'assistant', 'content': None}
  calls |= {'tool_calls': [{'type': 'function', 'function': tools[0]}]}
  answer = [ANSWER[0] | {'reasoning_content': 'why'}]
  turns = [*TURNS, calls, {'role': 'tool', 'content': '3'}, *answer]
  row = {'prompt': turns[:-1], 'completion': answer, 'system': 'be brief'}
  opening = {'role': 'system', 'content': 'be brief'}
  whole = chosen.hf.apply_chat_template(
    [opening, *TURNS, calls | {'content': ''}, *turns[2:]],
    tools=tools,
    tokenize=False,
  )
  for given in (tools, json.dumps(tools)):
    columns = formats.Columns()
    rows = [sources.SourceRow('x', 1, row | {'tools': given})]
    convert = formats.KINDS['responses'][1]
    [(_, [found])] = columns.read('x', rows, convert, chat_lib.Chat(chosen))
    assert columns.summary() == ''
    assert found['prompt'] + found['response'] + '<eos>' == whole
  # A call is an answer; other templates would lose it.
  row = {'messages': [*TURNS, calls]}
  found = formats.response_row(row, chat_lib.Chat(chosen))
  assert found['response'] == '<add>'
  for chat in (chat_lib.Chat(), chat_lib.Chat(with_template(bare, CHATML))):
    with pytest.raises(sources.BadRow, match='template does not write'):
      formats.response_row(row, chat)


DIALOGUE = [
  {'role': 'system', 'content': ' be brief '},
  *TURNS,
  *ANSWER,
  {'role': 'user', 'content': '"wide" {{ 1 }}\\n\'?'},
]


@pytest.mark.parametrize(
  'prompt_template', ['{prompt}', '{prompt}\n', 'Q: "{prompt}"\\\n\nA: \'']
)
def test_plain_rendering_is_the_exported_template(bare, prompt_template):
  """Without a template: what is trained on is what the export will render."""
  plain = chat_lib.Chat(None, prompt_template).jinja()
  chat = chat_lib.Chat(bare, prompt_template)
  spaced = [{'role': 'assistant', 'content': ' hello again '}]
  for prompt, answer in itertools.product((TURNS, DIALOGUE), (ANSWER, spaced)):
    head, response = chat.split(prompt, answer)
    assert head + response + '<eos>' == bare.hf.apply_chat_template(
      prompt + answer, chat_template=plain, tokenize=False
    )
    assert head == bare.hf.apply_chat_template(
      prompt, chat_template=plain, tokenize=False, add_generation_prompt=True
    )
  # One question and one answer are a plain row.
  head, response = chat.split(TURNS, spaced)
  assert head == chat.prompt('the world')
  assert response == ' hello again '


# Hostile templates (found by tests/fuzz).


@pytest.mark.parametrize('template', [7, ['x'], {'other': 'x', 'another': 'y'}])
def test_templates_that_are_no_text(bare, template):
  with pytest.raises(errors.UserError, match='tokenizer: .*chat.template'):
    chat_lib.Chat(with_template(bare, template))


@pytest.mark.parametrize(
  'template, told',
  [
    ("{{ raise_exception('roles must\nalternate') }}", 'roles must alternate'),
    ('{{ messages[9].content.x.y }}', 'no element 9|no attribute'),
    ('{% for %}', 'Expected'),
    ('{{ messages.__class__.__mro__ }}', ''),
    ('{{ cycler.__init__.__globals__ }}', ''),
    ("{% include '/etc/hostname' %}", ''),
    ('{% for i in range(10**9) %}x{% endfor %}', ''),
    ("{{ raise_exception('\ud800') }}", ''),
  ],
)
def test_refusals_are_one_line_and_reach_nothing_outside(bare, template, told):
  chat = chat_lib.Chat(with_template(bare, template))
  told = f'the chat template refuses it: .*({told})'
  with pytest.raises(sources.BadRow, match=told) as bad:
    chat.prompt(TURNS)
  assert str(bad.value).isprintable()
