# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""What M stacked reward models cost: on M devices, and on one.

  python -m experiments.speed.members [--members=1,2,4,8] [--repeats=7] [--width=64]

One optimizer step of M members, variants in turn, medians:

  mesh   one member on each of M devices, (member, data, model) = (M, 1, 1)
  scan   all of them on one device, one after another
  vmap   all of them on one device, at once

`ms` is the time of a step; `cpu_ms` the processor time of a step divided by M,
which other work on the machine and host devices that share a core disturb
less; `of_one` is cpu_ms over that of one member alone. `mb` is what the
compiled step needs on a device: arguments, temporaries and what is not written
over the arguments. On CPUs the devices are host devices of one core each.
"""

import argparse
import csv
import os
import pathlib
import statistics
import time

FLAGS = os.environ.get('XLA_FLAGS', '')
if 'device_count' not in FLAGS:
  # Products of one thread, so that a device is a core; no effect on GPUs.
  os.environ['XLA_FLAGS'] = (
    f'{FLAGS} --xla_force_host_platform_device_count=8'
    ' --xla_cpu_multi_thread_eigen=false'
  )

import jax  # noqa: E402
import numpy as np  # noqa: E402

from experiments.speed import machine  # noqa: E402
from warm_jax import sharding  # noqa: E402
from warm_jax.config import section  # noqa: E402
from warm_jax.models import language_model, reward_model  # noqa: E402
from warm_jax.training import optimizer, reward  # noqa: E402
from warm_jax.training import state as state_lib  # noqa: E402

FIELDS = ('variant', 'members', 'ms', 'cpu_ms', 'of_one', 'mb', 'compile_s')


class Variant:
  """The step of M members in one form, its state kept from call to call."""

  def __init__(self, name, num_members, width, batch, length):
    self.name, self.num_members = name, num_members
    sizes = (num_members, 1, 1) if name == 'mesh' else (1, 1, 1)
    self.mesh = sharding.make_mesh(sizes)
    shape = machine.model_shape(width, length)
    config = section('reward', num_members, steps=1_000)
    tx = optimizer.make(config.optimizer, config.steps)
    keys = jax.random.split(jax.random.key(0), num_members)

    def one(key):
      backbone = language_model.init_params(key, shape)['backbone']
      return reward_model.init_params(key, shape, backbone)

    ids = np.random.default_rng(0).integers(
      0, shape.vocab_size, (num_members, batch, length), np.int32
    )
    with jax.set_mesh(self.mesh):
      params = sharding.born(jax.vmap(one), 1)(keys)
      hparams = state_lib.make_hparams(
        num_members, learning_rate=1e-4, dropout_rate=0.1
      )
      self.state = state_lib.init(params, tx, keys, hparams)
      data = {'ids': ids, 'mask': np.ones(ids.shape, bool)}
      self.data = sharding.put_rows(data, num_members)
      mode = 'auto' if name == 'mesh' else name
      step = reward.make_step(shape, tx, config, mode)
      start = time.perf_counter()
      self.step = step.lower(self.state, self.data).compile()
      self.compile_s = time.perf_counter() - start
    need = self.step.memory_analysis()
    self.bytes = (
      need.argument_size_in_bytes
      + need.output_size_in_bytes
      - need.alias_size_in_bytes
      + need.temp_size_in_bytes
    )
    self.seconds, self.cpu_seconds = [], []

  def call(self, number: int) -> None:
    """So many steps, timed as one."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(number):
      self.state, _ = self.step(self.state, self.data)
    jax.block_until_ready(self.state)
    self.seconds.append((time.perf_counter() - wall) / number)
    self.cpu_seconds.append((time.process_time() - cpu) / number)

  def row(self) -> dict:
    cpu = statistics.median(self.cpu_seconds) / self.num_members
    return {
      'variant': self.name,
      'members': self.num_members,
      'ms': 1e3 * statistics.median(self.seconds),
      'cpu_ms': 1e3 * cpu,
      'mb': self.bytes / 1e6,
      'compile_s': self.compile_s,
    }


def main():
  """Prints a table in Markdown and writes it as CSV."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--members', default='1,2,4,8')
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--length', type=int, default=96)
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument(
    '--out', type=pathlib.Path, default='runs/speed_members.csv'
  )
  args = parser.parse_args()
  numbers = [int(m) for m in args.members.split(',')]
  forms = ('mesh', 'scan', 'vmap')
  variants = [
    Variant(form, m, args.width, args.batch, args.length)
    for form in forms
    for m in numbers
    if form != 'mesh' or m <= jax.device_count()
  ]
  for repeat in range(args.repeats + 1):
    for variant in variants:
      variant.call(2)
      if not repeat:  # the first call warms up
        variant.seconds.clear()
        variant.cpu_seconds.clear()
  rows = [variant.row() for variant in variants]
  alone = {r['variant']: r['cpu_ms'] for r in rows if r['members'] == 1}
  print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}\n')
  print('| ' + ' | '.join(FIELDS) + ' |')
  print('|' + '---|' * len(FIELDS))
  for row in rows:
    row['of_one'] = row['cpu_ms'] / alone[row['variant']]
    shown = {
      k: v if isinstance(v, (str, int)) else f'{v:.2f}' for k, v in row.items()
    }
    print('| ' + ' | '.join(str(shown[f]) for f in FIELDS) + ' |')
  args.out.parent.mkdir(parents=True, exist_ok=True)
  with args.out.open('w', newline='') as file:
    writer = csv.DictWriter(file, FIELDS)
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
