# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""torch samples with `transformers.generate`, key/value cache, float32.

The model is written to a folder before the first turn, so that ours starts from
the same weights. No token ends a response, so both sides draw them all.
"""

import serve
import torch
import transformers


def make(s):
  torch.manual_seed(s['seed'])
  # With the usual 0.02 the layers add next to nothing, and a tied model
  # repeats its last token whatever they compute.
  config = serve.llama(s, initializer_range=s['width'] ** -0.5)
  return transformers.LlamaForCausalLM(config).to(torch.float32).eval()


def main():
  s = serve.settings()
  model = make(s)
  model.save_pretrained(s['folder'])
  model.generation_config.eos_token_id = None
  ids = torch.tensor(s['ids'])  # [B, P]
  mask = torch.ones_like(ids)

  @torch.inference_mode()
  def logps(sequences):
    """Of the response tokens of sequences that the other side drew."""
    sequences = torch.tensor(sequences)
    scores = model(input_ids=sequences).logits[:, ids.shape[1] - 1 : -1]
    chosen = sequences[:, ids.shape[1] :, None]
    return scores.log_softmax(-1).gather(-1, chosen)[:, :, 0].tolist()

  def turn(greedy=False, tell=False, score=None):
    if score is not None:
      return {'logps': logps(score)}
    choice = {} if greedy else {'temperature': 1.0, 'top_k': 0, 'top_p': 1.0}
    out = model.generate(
      input_ids=ids,
      attention_mask=mask,
      do_sample=not greedy,
      max_new_tokens=s['new_tokens'],
      pad_token_id=0,
      use_cache=True,
      **choice,
    )
    responses = out[:, ids.shape[1] :]
    assert responses.shape[1] == s['new_tokens']
    return {'responses': responses.tolist()} if tell else None

  serve.serve({'torch': torch.__version__}, turn)


if __name__ == '__main__':
  main()
