"""What is open in a volume cut out of more does not depend on blocks."""

import pytest
from service.runs import SHAPE, run_of, store_affinities

from benchmarks.growth_nodes import on_faces
from benchmarks.growth_open import measure_open
from emslice.geometry.boxes import Roi
from emslice.ops.contacts import contacts_of
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.open_graph import base_graph, decide
from emslice.stages.agglomerate import oversegment
from emslice.volumes import open_volume


@pytest.mark.parametrize("block", [SHAPE, (3, 17, 23)])
def test_open_nodes_and_rows_are_those_of_one_graph(tmp_path, block):
    url, box = store_affinities(tmp_path, seed=7), Roi((0, 0, 0), SHAPE)
    run_of(url, tmp_path / "run", 0.5, block=list(block), workers=1)
    parts = oversegment(open_volume(url).read(box))
    graph = base_graph(contacts_of(parts.graph, parts.fragments.ids), Linkage())
    touching = on_faces(parts.fragments)
    for lowest in (0.5, 0.3):
        whole = decide(graph, touching, integer_threshold(lowest), Linkage())
        found = measure_open(tmp_path / "run", tmp_path / "open", lowest)
        assert found["touching"] == len(touching)
        assert found["open_nodes"] == len(whole.open_names) > len(touching)
        assert found["open_rows"] == len(whole.rest)
    assert not any((tmp_path / "open").iterdir())
