# Copyright 2026 The warm_jax Authors. Apache-2.0.
"""Figures show the numbers they are given, and their words do not collide."""

import matplotlib
import numpy as np
import pytest
from matplotlib.backends import backend_agg
from report import made_up

from warm_jax.report import figures, style


def path(step, method='warm', gold=1.0):
  row = {'step': step, 'kl': step / 10, 'method': method, 'gold': gold}
  return row | {'length': 7.0}


def test_curves_are_the_numbers_given():
  sizes = {'test': {'warm': [0.7, 0.701, 0.7], 'ens': [0.7, 0.702, 0.7]}}
  (ax,) = figures.by_size(sizes).axes
  drawn = {line.get_color(): line for line in ax.lines}
  for method, values in sizes['test'].items():
    line = drawn[style.color(method)]
    np.testing.assert_array_equal(line.get_xydata(), [*zip((1, 2, 3), values)])
  low, high = ax.get_ylim()  # a flat curve is not blown up
  assert high - low >= 0.0999


def test_bands_are_95_percent():
  path = {'lambda': [0.0, 1.0], 'accuracy_stderr': [0.0, 0.01]}
  path |= {k: [0.7, 0.8] for k in ('accuracy', 'ens_accuracy', 'diag_accuracy')}
  (ax,) = figures.interpolation({'test': path}).axes
  (band,) = ax.collections
  heights = band.get_paths()[0].vertices[:, 1]
  np.testing.assert_allclose(heights.min(), 0.7)
  np.testing.assert_allclose(heights.max(), 0.8 + 1.96 * 0.01)


def test_filled_only_where_the_interval_excludes_zero():
  ends = {'value': 0.7, 'low': 0.6, 'high': 0.8}
  row = {'members': [0.6], 'ens': ends, 'warm': ends}
  table = {
    name: row | {'wa_minus_ens': {'value': 0.01, 'low': low, 'high': 0.02}}
    for name, low in (('test', 0.005), ('ood', -0.01))
  }
  left, right = figures.accuracies(table, 0.65).axes
  marks = [line for line in right.lines if line.get_marker() == 'D']
  assert [m.get_markerfacecolor() == 'white' for m in marks] == [False, True]
  (floor,) = [x for x in left.lines if x.get_linestyle() == ':']
  assert list(floor.get_xdata()) == [0.65, 0.65]


def test_training_curves_are_running_means():
  rows = [{'step': s, 'loss/member_0': float(s % 2)} for s in range(80)]
  rows[0]['loss/member_0'] = float('nan')
  (ax,) = figures.training(rows, {'loss': 'loss'}).axes
  (line,) = ax.lines
  np.testing.assert_allclose(line.get_ydata(), 0.5)
  assert line.get_xdata()[0] == 2 and line.get_xdata()[-1] == 79


@pytest.mark.parametrize('columns', [1, 2])
def test_legend_names_each_method_once_and_fits(columns):
  methods = ('single', 'ens', 'warm', 'ens_2', 'warm_2')
  rows = [path(step, method) for step in (0, 10, 20) for method in methods]
  panels = [('length', 'kl'), ('gold', 'kl')]
  fig = figures.policies(rows, panels=panels, columns=columns)
  renderer = backend_agg.FigureCanvasAgg(fig).get_renderer()
  fig.draw_without_rendering()
  (legend,) = fig.legends
  names = [text.get_text() for text in legend.get_texts()]
  assert names == [style.name(method) for method in methods]
  box = legend.get_window_extent(renderer)
  assert 0 <= box.x0 and box.x1 <= fig.bbox.x1
  for ax in fig.axes:
    assert ax.get_tightbbox(renderer).y1 <= box.y0


def test_several_trainings_are_lines_a_mean_and_the_band_between():
  golds = {0: (1.0, 3.0, 1.0), 1: (1.0, 5.0, 1.0)}
  rows = [
    path(step, gold=gold) | {'seed': seed}
    for seed, values in golds.items()
    for step, gold in zip((0, 10, 20), values)
  ]
  (ax,) = figures.policies(rows, panels=[('gold', 'step')]).axes
  thin, other, mean = ax.lines
  assert [*thin.get_ydata()] == [*golds[0]]
  assert [*other.get_ydata()] == [*golds[1]]
  x, y = mean.get_xydata().T
  expected = np.interp(x, (0, 10, 20), (1, 4, 1))
  np.testing.assert_allclose(y, expected, atol=1e-9)
  (band,) = ax.collections
  heights = band.get_paths()[0].vertices[:, 1]
  at = np.abs(x - 10).argmin()
  low, high = (np.interp(x[at], (0, 10, 20), v) for v in golds.values())
  np.testing.assert_allclose([low, high], [heights[1 + at], heights[-2 - at]])


def test_ring_is_at_the_best_step():
  rows = [path(s, gold=g) for s, g in ((0, 1.0), (10, 2.0), (20, 1.5))]
  fig = figures.policies(rows, {'warm': 10})
  for ax, x in zip(fig.axes, (1.0, 10)):
    (ring,) = [
      line for line in ax.lines if line.get_markerfacecolor() == 'none'
    ]
    assert ring.get_xydata().tolist() == [[x, 2.0]]


def test_geometry():
  row, _ = figures.geometry_rows(made_up.warp()['iterations'])
  assert row['group'] == 'layers_0'  # the other group did not move
  np.testing.assert_allclose(row['angle'], 90.0)
  np.testing.assert_allclose(row['lerp_norm'], 2.0 / np.sqrt(2))


def test_a_figure_leaves_no_trace(tmp_path):
  settings = dict(matplotlib.rcParams)
  for name in 'ab':
    fig = figures.by_size({'test': {'warm': [0.7, 0.8], 'ens': [0.7, 0.9]}})
    style.save(fig, tmp_path / name)
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
  assert settings == dict(matplotlib.rcParams)
