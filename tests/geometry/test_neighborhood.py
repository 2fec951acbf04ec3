from emslice.geometry.neighborhood import NEAREST


def test_an_affinity_links_to_the_lower_neighbour_along_z_y_and_x():
    assert NEAREST == ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
