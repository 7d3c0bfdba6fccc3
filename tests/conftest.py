# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Settings of the tests, made before jax is imported by any of them."""

import gc
import os
import pathlib

from warm_jax import distributed

# Nothing may be fetched, and no advice printed, while tests run.
os.environ['HF_HUB_OFFLINE'] = '1'
os.environ['TRANSFORMERS_VERBOSITY'] = 'error'
# Exact comparisons are promised on a CPU; JAX_PLATFORMS=cuda tries a GPU.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Most of the time of such tests is small compilations: LLVM's optimisation,
# which has no part in what is computed, is left out (half of that time).
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
# And XLA's present way of writing fusions for the CPU takes longer to compile
# than its older one (a cold test of a policy loop 17 s, without it 12). jax 0.10
# to 0.12 know the flags; an unknown one would end the process.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_cpu_use_fusion_emitters=false'
  ' --xla_cpu_parallel_codegen_split_count=1',
)
# Tracing makes millions of small objects that live on: looking through them for
# garbage so often takes a tenth of the time.
gc.set_threshold(100_000, 50, 100)
for _name, _value in distributed.cache_environment().items():
  os.environ.setdefault(_name, _value)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_default_matmul_precision', 'highest')


# What takes longest, longest first: begun last, one of these would leave the
# other workers idle at the end.
LONGEST = (
  'experiments/smoke_test.py',
  'experiments/smoke_test.py::test_smoke_form[warp]',
  'warp_runs_test.py',
  'stages_test.py',
  'experiments/real_preferences_test.py',
  'user_runs_test.py',
  'notebooks_test.py',
  'training/warp_test.py',
  'sharding_test.py',
  'processes_test.py',
  'training/reward_test.py',
  'training/policy_loop_test.py',
)


def unit_of(nodeid):
  """What stays on one worker: a file, whose tests share runs and programs.

  Divided among workers, a run that a fixture makes for a module is made by each
  of them, and each compiles the same programs. A test named above goes alone.
  """
  name = nodeid.removeprefix('tests/')
  return name if name in LONGEST else name.partition('::')[0]


def pytest_collection_modifyitems(items):
  """Skips tests marked gpu where no GPU was asked for; orders for workers."""
  if os.environ['JAX_PLATFORMS'] == 'cpu':
    skip = pytest.mark.skip(reason='needs a GPU: JAX_PLATFORMS=cuda')
    for item in items:
      if 'gpu' in item.keywords:
        item.add_marker(skip)
  if 'PYTEST_XDIST_WORKER' in os.environ:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda x: ranks.get(unit_of(x.nodeid), len(ranks)))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
  """Lets programs go at the end of a file, once they are many.

  Each holds some seven memory maps, of which Linux gives a process 65,530;
  tests/training alone came to 38,000.
  """
  if nextitem is not None and nextitem.path != item.path:
    maps = pathlib.Path('/proc/self/maps')
    if not maps.exists() or maps.read_bytes().count(b'\n') > 20_000:
      jax.clear_caches()
      gc.collect()


@pytest.hookimpl(optionalhook=True)  # without xdist there is no such hook
def pytest_xdist_make_scheduler(config, log):
  """`-n 2` hands out files in the order above; --dist=... chooses otherwise."""
  if config.getvalue('dist') != 'load':
    return None
  from xdist.scheduler import LoadScopeScheduling

  class Scheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid):
      return unit_of(nodeid)

  config.option.loadscopereorder = False  # it would go by numbers of tests
  return Scheduling(config, log)
