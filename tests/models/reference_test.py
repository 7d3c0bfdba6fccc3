# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""The forward pass against float64 numpy, written from the papers' formulas.

Nothing here is shared with the library but the names of the parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from warm_jax.models import config as config_lib
from warm_jax.models import language_model


def random_params(config):
  shapes = jax.eval_shape(
    lambda: language_model.init_params(jax.random.key(0), config)
  )
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: rng.normal(0.0, 0.4, x.shape).astype(np.float32), shapes
  )


def attention_head(query, key, value):
  """One head: [T, Dh] each."""
  length, head_dim = query.shape
  out = np.zeros_like(value)
  for t in range(length):
    scores = np.array(
      [query[t] @ key[s] / np.sqrt(head_dim) for s in range(t + 1)]
    )
    out[t] = scipy.special.softmax(scores) @ value[: t + 1]
  return out


def compare(config, params, reference):
  ids = np.array([3, 1, 4, 1, 5, 9])
  as_float64 = jax.tree.map(lambda x: x.astype(np.float64), params)
  expected = reference(as_float64, ids)
  mask = jnp.ones((1, 6), bool)

  @jax.jit
  def forward(params, ids):
    hidden = language_model.hidden_states(params, config, ids, mask)
    return language_model.logits(params, config, hidden)

  np.testing.assert_allclose(
    forward(params, ids[None])[0], expected, atol=2e-5, rtol=2e-5
  )


def test_llama_like():
  config = config_lib.ModelConfig(
    vocab_size=13,
    width=12,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_width=10,
    max_length=8,
    rope_theta=50.0,
    norm_eps=1e-3,
    tied_embeddings=False,
  )

  def rms_norm(x, p):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-3) * p['scale']

  def rope(x):
    """Rotates the complex numbers x_i + j x_(i+3) of each position."""
    z = x[:, :3] + 1j * x[:, 3:]
    frequencies = 50.0 ** (-np.array([0, 2, 4]) / 6)
    z = z * np.exp(1j * np.outer(np.arange(len(x)), frequencies))
    return np.concatenate([z.real, z.imag], axis=1)

  def reference(params, ids):
    x = params['backbone']['embed']['embedding'][ids]
    for i in range(2):
      p = params['backbone'][f'layers_{i}']
      a, m = p['attention'], p['mlp']
      y = rms_norm(x, p['attention_norm'])
      query, key, value = (
        y @ a[name]['kernel'] for name in ('query', 'key', 'value')
      )
      heads = []
      for h in range(4):
        g = h // 2
        heads.append(
          attention_head(
            rope(query[:, 6 * h : 6 * h + 6]),
            rope(key[:, 6 * g : 6 * g + 6]),
            value[:, 6 * g : 6 * g + 6],
          )
        )
      x = x + np.concatenate(heads, axis=1) @ a['out']['kernel']
      y = rms_norm(x, p['mlp_norm'])
      gate = y @ m['gate']['kernel']
      y = gate * scipy.special.expit(gate) * (y @ m['up']['kernel'])
      x = x + y @ m['down']['kernel']
    x = rms_norm(x, params['backbone']['final_norm'])
    return x @ params['lm_head']['kernel']

  compare(config, random_params(config), reference)


def test_gpt2_like():
  config = config_lib.ModelConfig(
    vocab_size=13,
    width=12,
    num_layers=2,
    num_heads=3,
    mlp_width=20,
    max_length=8,
    norm='layernorm',
    norm_eps=1e-5,
    position='learned',
    mlp='plain',
    activation='gelu_tanh',
    qkv_bias=True,
    attention_out_bias=True,
    mlp_bias=True,
  )

  def dense(x, p):
    return x @ p['kernel'] + p['bias']

  def layer_norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    variance = x.var(-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * p['scale'] + p['bias']

  def gelu_new(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

  def reference(params, ids):
    backbone = params['backbone']
    table = backbone['embed']['embedding']
    x = table[ids] + backbone['pos_embed']['embedding'][: len(ids)]
    for i in range(2):
      p = backbone[f'layers_{i}']
      y = layer_norm(x, p['attention_norm'])
      query, key, value = (
        np.split(dense(y, p['attention'][name]), 3, axis=1)
        for name in ('query', 'key', 'value')
      )
      heads = [attention_head(*head) for head in zip(query, key, value)]
      x = x + dense(np.concatenate(heads, axis=1), p['attention']['out'])
      y = dense(layer_norm(x, p['mlp_norm']), p['mlp']['up'])
      x = x + dense(gelu_new(y), p['mlp']['down'])
    return layer_norm(x, backbone['final_norm']) @ table.T

  compare(config, random_params(config), reference)
