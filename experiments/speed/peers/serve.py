# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""A line of JSON in, one turn, a line of JSON out; see ../turns.py."""

import contextlib
import json
import sys
import time


def settings() -> dict:
  """What the program was started with."""
  return json.loads(sys.argv[1])


def llama(fields: dict, **more):
  """transformers' config of a Llama, fields as in ../machine.py's LLAMA."""
  import transformers

  tokens = {'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0}
  return transformers.LlamaConfig(
    vocab_size=fields['vocab_size'],
    hidden_size=fields['width'],
    num_hidden_layers=fields['num_layers'],
    num_attention_heads=fields['num_heads'],
    num_key_value_heads=fields['num_kv_heads'],
    intermediate_size=fields['mlp_width'],
    max_position_embeddings=fields['max_length'],
    tie_word_embeddings=fields['tied_embeddings'],
    **(tokens | more),
  )


def serve(told: dict, turn) -> None:
  """Says that all is ready, then takes turns until there are no more.

  Args:
    told: JSON-able, of the setup.
    turn: called with the fields of a request; may return a dict of more to
      tell. Its seconds are measured here.
  """
  answers, sys.stdout = sys.stdout, sys.stderr  # libraries print, too

  def say(fields):
    print(json.dumps(fields), file=answers, flush=True)

  say(told)
  with contextlib.suppress(BrokenPipeError):
    for line in sys.stdin:
      start = time.perf_counter()
      more = turn(**json.loads(line)) or {}
      say({'seconds': time.perf_counter() - start} | more)
