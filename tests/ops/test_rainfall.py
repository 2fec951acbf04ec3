import numpy as np
import pytest

from emslice.ops.rainfall import label_ends


def ends_of(pointer):
    """Where each path ends, one step at a time."""
    ends = []
    for place in range(len(pointer)):
        while pointer[place] != place:
            place = pointer[place]
        ends.append(place)
    return np.array(ends)


def label(pointer, shape):
    """Labels and roots of a section that is its own core; nothing is masked."""
    labels, height = np.empty(shape, np.int32), np.ones(shape, np.uint16)
    work = (np.empty(pointer.size + 1, np.int32) for _ in range(2))
    roots, exits = label_ends(height, pointer.reshape(shape), 0, 0, labels, *work)
    assert not len(exits)
    return labels, roots


@pytest.mark.parametrize("n_roots", [1, 5])
def test_paths_to_and_fro_end_at_their_roots(n_roots):
    # One long path in a random order, cut in pieces: no sweep gets far.
    shape = (13, 29)
    order = np.random.default_rng(n_roots).permutation(13 * 29).astype(np.int32)
    pointer = np.empty(order.size, np.int32)
    pointer[order[:-1]] = order[1:]
    last = np.linspace(0, order.size - 1, n_roots + 1).astype(int)[1:]
    pointer[order[last]] = order[last]
    ends = ends_of(pointer)
    labels, roots = label(pointer.copy(), shape)
    assert roots.tolist() == sorted(order[last].tolist())
    np.testing.assert_array_equal(roots[labels - 1].ravel(), ends)


def test_what_is_outside_the_core_ends_a_path_wherever_it_points_itself():
    height, target = np.ones((3, 4), np.uint16), np.zeros((3, 4), np.int32)
    target[1, 1], target[1, 2] = 10, 5  # to the row below, and to its left neighbour
    labels, work = np.empty((1, 2), np.int32), [np.empty(13, np.int32) for _ in range(2)]
    roots, exits = label_ends(height, target, 1, 1, labels, *work)
    assert (roots.tolist(), exits.tolist(), labels.tolist()) == ([], [10], [[-1, -1]])
