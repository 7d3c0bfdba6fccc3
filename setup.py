# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Installation of warm_jax; settings of the tools are in pyproject.toml."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
README = HERE / 'README.md'
URL = 'https://github.com/warm-jax/warm_jax'
VERSION = re.search(
  r"__version__ = '(.*)'", (HERE / 'warm_jax' / '__init__.py').read_text()
).group(1)

# The ranges were run on both ends: Python 3.11 resolves to jax 0.10, Python
# 3.12 to jax 0.12. No TensorFlow: TFDS reads array_record without it.
REQUIRES = [
  'absl-py>=2.3',
  'chex>=0.1.91,<0.2',
  'flax>=0.12.7,<0.13',
  'grain>=0.2.16,<0.3',
  'huggingface_hub>=1',  # ids of models on the hub
  'tqdm',  # how far a loop is
  'importlib_resources',  # tensorflow-datasets forgets it on Python 3.11
  'jax>=0.10,<0.13',  # tests/conftest.py sets flags that these know
  'jinja2>=3.1',  # chat templates of transformers
  'matplotlib>=3.10',
  'ml_collections>=1.1,<2',
  'numpy>=2.2,<3',
  'optax>=0.2.8,<0.3',
  'orbax-checkpoint>=0.12,<0.13',
  'pyarrow>=20',  # .parquet
  'safetensors>=0.8,<0.9',
  'scipy>=1.14',
  'tensorflow-datasets>=4.9.10,<5',
  'tokenizers>=0.22',
  # 5.9.0 reads each probe of data/tokenizer.py as tokenizer.json has it.
  'transformers>=5.9,<6',
]

JAX = 'jax[{}]>=0.10,<0.13'
EXTRAS = {
  **{name: [JAX.format(name)] for name in ('cuda12', 'cuda13', 'tpu')},
  'tb': ['tensorboardX>=2.6.5'],
  'wandb': ['wandb'],
  'hf': ['datasets>=3'],  # to read hf:FOLDER
  'nb': ['nbclient>=0.10', 'nbformat', 'ipykernel'],
  'test': ['pytest>=8.4', 'pytest-xdist>=3.6'],
  'dev': ['ruff>=0.15', 'pyright'],
}

setuptools.setup(
  name='warm_jax',
  version=VERSION,
  description='Weight-averaged reward models and policies (WARM, WARP) in JAX.',
  long_description=README.read_text() if README.exists() else '',
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  license_files=['LICENSE'],
  author='The warm_jax Authors',
  url=URL,
  project_urls={
    'Documentation': f'{URL}/tree/main/docs',
    'Changelog': f'{URL}/blob/main/CHANGELOG.md',
    'Issues': f'{URL}/issues',
  },
  keywords='JAX RLHF reward-model weight-averaging WARM WARP',
  classifiers=[
    'Development Status :: 4 - Beta',
    'Intended Audience :: Science/Research',
    'Operating System :: POSIX',
    'Programming Language :: Python :: 3.11',
    'Programming Language :: Python :: 3.12',
    'Programming Language :: Python :: 3.13',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
    'Typing :: Typed',
  ],
  python_requires='>=3.11',
  packages=[
    *setuptools.find_packages(include=['warm_jax', 'warm_jax.*']),
    'warm_jax.configs',
  ],
  # `warm --config=NAME` finds the top-level folder in the wheel, too.
  package_dir={'warm_jax.configs': 'configs'},
  package_data={
    'warm_jax': ['py.typed'],
    'warm_jax.report': ['*.j2', '*.mplstyle'],
  },
  install_requires=REQUIRES,
  extras_require=EXTRAS,
  entry_points={'console_scripts': ['warm = warm_jax.main:run']},
)
