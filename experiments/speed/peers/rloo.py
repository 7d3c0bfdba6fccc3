# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""TRL's RLOOTrainer, a few of its steps at a time.

Its defaults where they cost nothing: the key/value cache in generation, the
fused AdamW, log-probabilities of the responses only. Switched off in its favour:
gradient checkpointing (on by default, about 20 % slower), logs, evaluation,
saving, the progress bar. float32, as ours is.

`train` cannot be called for a few steps and then for more: the loop stays open,
and a callback holds it before each step until steps have been asked for. A turn
lasts from one such stop to the next, so all that the trainer does from step to
step is in it.

TRL hands its reward model text. Here token i is one character, so that text and
ids say the same, and no id of the model is an end or padding: all responses are
as long as they may be.
"""

import os
import queue
import threading

import datasets
import serve
import tokenizers
import torch
import transformers
import trl

FIRST_CHARACTER = 0x4E00


def make_tokenizer(vocab_size):
  """One character a token; end and padding lie outside the model's table."""
  vocabulary = {chr(FIRST_CHARACTER + i): i for i in range(vocab_size)}
  vocabulary |= {'<pad>': vocab_size, '<end>': vocab_size + 1}
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(vocabulary, unk_token='<pad>')
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.Split(
    tokenizers.Regex('.'), 'isolated'
  )
  made.decoder = tokenizers.decoders.Fuse()
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=made,
    pad_token='<pad>',
    eos_token='<end>',
    padding_side='left',
  )


def make_models(s):
  """Folders of a reference, of a policy that differs from it, of a judge."""
  no_tokens = dict.fromkeys(('bos_token_id', 'eos_token_id', 'pad_token_id'))
  # Wider than the usual 0.02, or all tokens would be as good as equal.
  config = serve.llama(s, initializer_range=0.1, num_labels=1, **no_tokens)
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(config)
  model.save_pretrained(os.path.join(s['folder'], 'reference'))
  with torch.no_grad():
    for parameter in model.parameters():
      parameter += 0.01 * torch.randn_like(parameter)
  model.save_pretrained(os.path.join(s['folder'], 'policy'))
  judge = transformers.LlamaForSequenceClassification(config)
  judge.save_pretrained(os.path.join(s['folder'], 'judge'))


class Gate(transformers.TrainerCallback):
  """Holds the loop before each step until somebody asks for one."""

  def __init__(self):
    self.asked, self.reached = queue.Queue(), queue.Queue()

  def on_step_begin(self, args, state, control, **kwargs):
    """The step before this one, with all that follows it, is over."""
    del args, control, kwargs
    self.reached.put(state.global_step)
    if self.asked.get() is None:
      raise SystemExit

  def take(self, steps):
    """Lets through so many steps, and waits for the end of the last one."""
    for _ in range(steps):
      self.asked.put(True)
    for _ in range(steps):
      self.reached.get()


class Trainer(trl.RLOOTrainer):
  """Remembers what it computed last, to be compared; changes nothing."""

  def _calculate_rewards(self, *args):
    self.last_rewards = super()._calculate_rewards(*args)
    return self.last_rewards

  def _generate_and_score_completions(self, inputs):
    self.last = super()._generate_and_score_completions(inputs)
    return self.last


def make_trainer(s, gate):
  """The trainer of a policy, with a reference, a judge and prompts."""
  folder, tokenizer = s['folder'], make_tokenizer(s['vocab_size'])

  def load(kind, name):
    place = os.path.join(folder, name)
    return kind.from_pretrained(place, dtype=torch.float32)

  policy = load(transformers.LlamaForCausalLM, 'policy')
  # Where the trainer finds its reference.
  policy.config._name_or_path = os.path.join(folder, 'reference')
  arguments = trl.RLOOConfig(
    output_dir=os.path.join(folder, 'out'),
    max_steps=s['most_steps'],
    per_device_train_batch_size=s['prompts'] * s['samples'],
    num_generations=s['samples'],
    max_completion_length=s['response'],
    temperature=s['temperature'],
    beta=s['kl_coef'],
    learning_rate=s['learning_rate'],
    lr_scheduler_type='constant',
    adam_beta1=s['b1'],
    adam_beta2=s['b2'],
    adam_epsilon=s['eps'],
    weight_decay=0.0,
    max_grad_norm=s['clip_norm'],
    gradient_checkpointing=False,
    bf16=False,
    use_cpu=True,
    shuffle_dataset=False,
    logging_strategy='no',
    save_strategy='no',
    report_to='none',
    disable_tqdm=True,
  )
  texts = [
    ''.join(chr(FIRST_CHARACTER + i) for i in row) for row in s['prompt_ids']
  ]
  return Trainer(
    model=policy,
    reward_funcs=load(transformers.LlamaForSequenceClassification, 'judge'),
    args=arguments,
    # Again and again, so that what an epoch begins with is hardly ever paid.
    train_dataset=datasets.Dataset.from_dict({'prompt': 64 * texts}),
    processing_class=tokenizer,
    reward_processing_classes=tokenizer,
    callbacks=[gate],
  )


def main():
  s = serve.settings()
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  datasets.disable_progress_bars()
  make_models(s)
  gate = Gate()
  trainer = make_trainer(s, gate)

  def turn(steps, tell=False):
    gate.take(steps)
    if not tell:
      return None
    last = trainer.last
    ids = torch.cat([last['prompt_ids'], last['completion_ids']], dim=1)
    trainer.model.save_pretrained(os.path.join(s['folder'], 'updated'))
    return {
      'ids': ids.tolist(),
      'is_whole': bool(last['completion_mask'].all()),
      'logps': last['old_logps'].tolist(),
      'rewards': trainer.last_rewards[:, 0].tolist(),
      'advantages': last['advantages'].tolist(),
    }

  def serve_all():
    gate.reached.get()  # the loop stands before its first step
    told = {'torch': torch.__version__, 'trl': trl.__version__}
    serve.serve(told, turn)
    gate.asked.put(None)

  # The trainer has the main thread, and with it torch's own settings of it.
  threading.Thread(target=serve_all, daemon=True).start()
  trainer.train()


if __name__ == '__main__':
  main()
