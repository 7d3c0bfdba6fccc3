# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""torch trains reward models, one after another, as one would with transformers.

LlamaForSequenceClassification with one label, Bradley-Terry loss, AdamW with the
gradient clipped, float32. The models are written to a folder each before their
first step, so that ours start from the same weights.
"""

import os

import serve
import torch
import transformers


def main():
  s = serve.settings()
  models, optimizers = [], []
  for m in range(s['members']):
    torch.manual_seed(m)
    config = serve.llama(s, num_labels=1)
    model = transformers.LlamaForSequenceClassification(config)
    model = model.to(torch.float32).train()
    model.save_pretrained(os.path.join(s['folder'], f'member_{m}'))
    models.append(model)
    optimizers.append(
      torch.optim.AdamW(
        model.parameters(),
        lr=s['learning_rate'],
        betas=(s['b1'], s['b2']),
        eps=s['eps'],
        weight_decay=0.0,
      )
    )
  ids = torch.tensor(s['ids'])  # [M, 2B, T], chosen rows then rejected
  mask = torch.ones_like(ids[0])

  def turn(steps):
    losses = []
    for m, (model, optimizer) in enumerate(zip(models, optimizers)):
      for _ in range(steps):
        scores = model(input_ids=ids[m], attention_mask=mask).logits[:, 0]
        chosen, rejected = scores.chunk(2)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), s['clip_norm'])
        optimizer.step()
        losses.append(loss.item())
    return {'losses': losses}

  serve.serve({'torch': torch.__version__}, turn)


if __name__ == '__main__':
  main()
