import pytest

from emslice.geometry.neighborhood import NEAREST, NEIGHBORHOODS


def test_the_channels_are_z_y_x_and_link_to_the_earlier_voxel():
    assert NEAREST == ((-1, 0, 0), (0, -1, 0), (0, 0, -1))


def test_there_is_a_neighborhood_of_every_published_number_of_channels():
    assert sorted(NEIGHBORHOODS) == [3, 7, 9, 12, 15, 17, 23]
    assert all(len(offsets) == n for n, offsets in NEIGHBORHOODS.items())


@pytest.mark.parametrize("offsets", NEIGHBORHOODS.values(), ids=len)
def test_the_first_three_channels_are_those_of_a_segmentation(offsets):
    assert offsets[:3] == NEAREST


@pytest.mark.parametrize("offsets", NEIGHBORHOODS.values(), ids=len)
def test_every_link_is_there_once_and_held_by_the_later_voxel(offsets):
    linked = {frozenset([(0, 0, 0), offset]) for offset in offsets}
    opposite = {tuple(-n for n in offset) for offset in offsets}
    assert len(linked) == len(offsets)
    assert not opposite & set(offsets)
    assert all(next(n for n in offset if n) < 0 for offset in offsets)


@pytest.mark.parametrize("n", [7, 9, 15])
def test_smaller_neighborhoods_are_the_beginning_of_larger_ones(n):
    assert NEIGHBORHOODS[23][:n] == NEIGHBORHOODS[17][:n] == NEIGHBORHOODS[n]


def test_the_twelve_of_the_teacher_follow_the_axes():
    offsets = NEIGHBORHOODS[12]
    assert [offset[i % 3] for i, offset in enumerate(offsets)] == [
        -1, -1, -1, -2, -3, -3, -3, -9, -9, -4, -27, -27,
    ]  # fmt: skip
    assert all(sum(n != 0 for n in offset) == 1 for offset in offsets)
