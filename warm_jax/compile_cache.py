# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Where compiled programs are kept, so that a second start compiles nothing."""

import hashlib
import os
import pathlib
import platform


def default_folder() -> str:
  """A folder of this user for this kind of processor.

  A program compiled for one CPU may use instructions another lacks, and a
  home directory may be shared by both: so the name carries a hash of the
  processor's features.
  """
  features = platform.machine()
  cpuinfo = pathlib.Path('/proc/cpuinfo')
  if cpuinfo.exists():
    lines = cpuinfo.read_text(errors='replace').splitlines()
    wanted = ('flags', 'Features', 'model name')
    features += ''.join([x for x in lines if x.startswith(wanted)][:2])
  mark = hashlib.sha256(features.encode()).hexdigest()[:8]
  caches = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return str(pathlib.Path(caches) / 'warm_jax' / f'jax-{mark}')


def environment(folder: str | None = None) -> dict[str, str]:
  """Variables that switch the cache on for jax, imported later.

  Both thresholds are 0: the many small programs of a start cost the most.

  Args:
    folder: where; None or '' takes `default_folder()`.
  """
  return {
    'JAX_COMPILATION_CACHE_DIR': folder or default_folder(),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
  }
