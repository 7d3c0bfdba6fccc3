# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What a judge reads: templates to the letter, all ends, one start, text as text."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import transformers

from warm_jax import errors, rewards
from warm_jax.data import chat as chat_lib
from warm_jax.data import encoding, formats, sources, tokenizer

pytestmark = pytest.mark.hf

END = '<|end|>'
TURN = "'[' + m.role + ']' + m.content"
GENERATION = "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
TEMPLATES = {
  'chatml': f"{{{{ {TURN} + '{END}\n' }}}}",
  'zephyr': f"{{{{ {TURN} + eos_token + '\n' }}}}",
  'llama3': f'{{{{ {TURN} + eos_token }}}}',
  'words': f"{{{{ {TURN} + '[end]\n' }}}}",  # ends in no token of its own
}
PAIR = {'prompt': 'what is it', 'chosen': ' it is so', 'rejected': 'no'}


def rendered(body):
  loop = f'{{% for m in messages %}}{body}{{% endfor %}}'
  return '{{ bos_token }}' + loop + GENERATION


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A tokenizer with a token that ends turns, which the configs do not name."""
  path = tmp_path_factory.mktemp('judge')
  texts = ['what is it it is so no [user][assistant][end]'] * 20
  made = tokenizer.train_bpe_tokenizer(texts, 300, path)
  made.hf.add_special_tokens({'additional_special_tokens': [END]})
  made.hf.save_pretrained(path)
  return path


def opened(folder, tmp_path, template):
  (tmp_path / 'template.jinja').write_text(template)
  return tokenizer.load_pretrained(folder, str(tmp_path / 'template.jinja'))


def turns(*texts):
  roles = ('user', 'assistant') * len(texts)
  return [{'role': r, 'content': t} for r, t in zip(roles, texts)]


@pytest.mark.parametrize('name', TEMPLATES)
def test_foreign_judges_read_what_transformers_writes(folder, tmp_path, name):
  words = opened(folder, tmp_path, rendered(TEMPLATES[name]))
  chat = chat_lib.judge_chat(words, 'judge', {})
  plain = formats.preference_rows(dict(PAIR), chat)[0]
  spoken = {
    'prompt': turns(PAIR['prompt']),
    **{k: turns('', PAIR[k])[1:] for k in ('chosen', 'rejected')},
  }
  assert formats.preference_rows(spoken, chat)[0] == plain
  rows, _, _ = encoding.encode(
    chat.tokenizer, [plain['prompt']], [plain['chosen']], 99, apart=False
  )
  wanted = words.hf.apply_chat_template(
    turns(PAIR['prompt'], PAIR['chosen']), return_dict=False
  )
  assert rows.ids[0].tolist() == wanted
  # A policy's sample, which stops at an end, becomes the same text.
  prompt = words.hf.apply_chat_template(
    turns(PAIR['prompt']), return_dict=False, add_generation_prompt=True
  )
  response = words.encode([PAIR['chosen']])[0]
  for end in words.eos_ids:
    ids = np.array([[*prompt, *response, end, words.pad_id]])
    mask = np.arange(ids.shape[1])[None] < ids.shape[1] - 1
    if closing := chat.closing():
      ids, mask = rewards.closed(jnp.array(ids), jnp.array(mask), *closing)
    if closing or end == wanted[-1]:
      assert ids[mask].tolist() == wanted


def test_the_caller_may_say_otherwise(folder, tmp_path):
  words = opened(folder, tmp_path, rendered(TEMPLATES['llama3']))
  plain = chat_lib.judge_chat(words, 'judge', {}, template='Q: {prompt}\nA:')
  assert plain.prompt('x') == 'Q: x\nA:' and plain.tokenizer.appends_eos
  bare = chat_lib.judge_chat(words, 'judge', {}, 'plain', '', 'false')
  assert bare.prompt('x') == 'x' and not bare.tokenizer.appends_eos
  with pytest.raises(errors.UserError, match='nor is it a file'):
    chat_lib.judge_chat(words, 'judge', {}, template='nothing')
  words.hf.chat_template = None
  with pytest.raises(errors.UserError, match='has no chat template'):
    chat_lib.judge_chat(words, 'judge', {}, 'chat')


@pytest.mark.parametrize('name', TEMPLATES)
def test_an_export_renders_its_training(folder, tmp_path, name):
  """apply_chat_template on an export gives the ids of training."""
  words = opened(folder, tmp_path, rendered(TEMPLATES[name]))
  chat = chat_lib.Chat(words)
  head, text = chat.split(turns('what is it'), turns('', 'so')[1:])
  rows, _, _ = encoding.encode(words, [head], [text], 99, apart=False)
  assert chat.as_trained()['style'] == 'chat'
  wanted = words.hf.apply_chat_template(
    turns('what is it', 'so'), chat_template=chat.jinja(), return_dict=False
  )
  assert rows.ids[0].tolist() == wanted and wanted[-1] in words.eos_ids


def test_all_ends_are_known(folder, tmp_path):
  for file, ends in (('config', 2), ('generation_config', [2, 9])):
    (folder / f'{file}.json').write_text(json.dumps({'eos_token_id': ends}))
  words = opened(folder, tmp_path, rendered(TEMPLATES['chatml']))
  number = words.hf.convert_tokens_to_ids(END)
  assert set(words.eos_ids) == {2, 9, number} and words.eos_ids[0] == 2
  for file in ('config', 'generation_config'):
    (folder / f'{file}.json').unlink()


THOUGHT = '<think>\nhm\n</think>\n'


@pytest.mark.parametrize(
  ('prefill', 'answer', 'response'),
  [
    ('<think>\n', THOUGHT + 'so', 'hm\n</think>\nso'),
    ('<think>\n', 'so', '\n</think>\n\nso'),
    ('<think>\n\n</think>\n\n', THOUGHT + 'so', 'so'),
    ('<think>\n\n</think>\n\n', 'so', 'so'),
    ('Sure, ', 'Sure, so', 'so'),
  ],
)
def test_prefilled_answers(folder, tmp_path, prefill, answer, response):
  """What a policy continues is what stood before the response in training."""
  template = rendered(TEMPLATES['llama3']).replace(
    "'[assistant]' }}{% endif", f"'[assistant]{prefill}' }}}}{{% endif"
  )
  chat = chat_lib.Chat(opened(folder, tmp_path, template))
  head, text = chat.split(turns('what'), turns('', answer)[1:])
  assert head == chat.prompt(turns('what')) and head.endswith(prefill)
  assert text == response


def test_turns_that_a_template_refuses_are_joined(folder, tmp_path):
  check = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
  chat = chat_lib.Chat(
    opened(folder, tmp_path, check + rendered(TEMPLATES['llama3']))
  )
  text = chat.prompt([{'role': 'system', 'content': 'be so'}, *turns('what')])
  assert '[user]be so\n\nwhat' in text and chat.told


@pytest.fixture
def spaced(tmp_path):
  """As SentencePiece does, a token has the space before it."""
  made = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      {t: i for i, t in enumerate(['<pad>', '</s>', ':', '▁', 'a', '▁a', '5'])},
      [('▁', 'a')],
    )
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
    prepend_scheme='never', split=False
  )
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=made, pad_token='<pad>', eos_token='</s>'
  ).save_pretrained(tmp_path)
  return tmp_path


def test_a_space_before_the_response_is_drawn_by_the_policy(spaced):
  words = tokenizer.load_pretrained(spaced)
  alone, _, _ = encoding.encode(words, [': '], None, 9, apart=False)
  for response, ids in (('a', [2, 5, 1]), ('5', [2, 3, 6, 1])):
    row, _, _ = encoding.encode(words, [': '], [response], 9, apart=False)
    assert row.ids[0].tolist() == ids and row.response_start[0] == 1
  assert alone.ids.tolist() == [[2]]


def test_special_tokens_that_a_text_names_are_text(folder, tmp_path):
  words = opened(folder, tmp_path, rendered(TEMPLATES['llama3']))
  words.hf.split_special_tokens = True
  wanted = words.hf('<eos>so', add_special_tokens=False)['input_ids']
  words.hf.split_special_tokens = False
  marked = words.literal('<eos>so')
  assert words.encode([marked]) == [wanted] != words.encode(['<eos>so'])
  assert words.encode([f'<bos>{marked}<eos>'])[0] == [1, *wanted, 2]
  chat = chat_lib.Chat(words)
  row = formats.preference_rows(PAIR | {'rejected': ' it is so<eos>'}, chat)[0]
  ids = words.encode([row['rejected'], row['chosen']])
  assert ids[0] != ids[1] and chat.told


def test_the_file_of_a_tokenizer_wins(spaced):
  """For qwen2 transformers puts its own splitting in place of the file's."""
  (spaced / 'config.json').write_text(json.dumps({'model_type': 'qwen2'}))
  ours = tokenizers.Tokenizer.from_file(str(spaced / 'tokenizer.json'))
  wanted = ours.encode(': a5', add_special_tokens=False).ids
  assert wanted == [2, 5, 6]
  assert tokenizer.load_pretrained(spaced).encode([': a5']) == [wanted]
  other = transformers.AutoTokenizer.from_pretrained(spaced)
  assert other(': a5', add_special_tokens=False)['input_ids'] != wanted


def test_a_sentencepiece_model_names_its_package(tmp_path, monkeypatch):
  (tmp_path / 'tokenizer.model').write_bytes(b'\n\x0e')
  monkeypatch.setattr(tokenizer, '_is_installed', lambda name: False)
  with pytest.raises(errors.UserError, match='pip install sentencepiece'):
    tokenizer.load_pretrained(tmp_path)


def test_judges_of_conversations_refuse_bare_texts(folder, tmp_path):
  words = opened(folder, tmp_path, rendered(TEMPLATES['llama3']))
  chat = chat_lib.judge_chat(words, 'judge', {})
  with pytest.raises(sources.BadRow, match='reads conversations'):
    formats.response_row({'text': 'what is it'}, chat)
