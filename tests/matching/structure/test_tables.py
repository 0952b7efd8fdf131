"""Integer tables: loaded where both sides keep one beside the same layers, else each side's own affair."""

from __future__ import annotations

from loadstone.matching.structure import Item, Match, match
from loadstone.matching.structure.steps import Reshape


def side(container: str, table: tuple[int, ...] = (), dtype: str = "int64", depth: int = 3) -> list[Item]:
    found = []
    for block in range(depth):
        path = container.format(block)
        found += [Item(f"{path}.proj.weight", (8 + block, 8)), Item(f"{path}.proj.bias", (8 + block,))]
        if table:
            found.append(Item(f"{path}.index", table, dtype))
    return found


def taken(result: Match) -> dict[str, str]:
    return {key: one.sources[0].key for key, one in result.assignments.items() if key.endswith("index")}


def test_a_table_goes_where_the_layers_beside_it_go() -> None:
    result = match(side("layers.{}.attention", (49, 49)), side("blocks.{}.attn", (49, 49)))
    assert taken(result) == {f"blocks.{n}.attn.index": f"layers.{n}.attention.index" for n in range(3)}
    assert all(result.assignments[key].grade == "sibling" for key in taken(result))


def test_a_flat_table_takes_the_shape_of_the_other() -> None:
    result = match(side("layers.{}.attention", (2401,)), side("blocks.{}.attn", (49, 49)))
    assert result.assignments["blocks.1.attn.index"].steps == (Reshape((49, 49)),)


def test_a_table_of_another_size_stays_with_its_own_side() -> None:
    result = match(side("layers.{}.attention", (16, 16)), side("blocks.{}.attn", (49, 49)))
    assert taken(result) == {}
    assert result.verdict == "complete"


def test_a_mask_is_no_index() -> None:
    assert taken(match(side("layers.{}.a", (4, 4), "bool"), side("blocks.{}.b", (4, 4), "int64"))) == {}


def test_two_tables_beside_one_layer_are_not_told_apart() -> None:
    source = [*side("layers.{}.a", (4, 4)), Item("layers.1.a.other", (4, 4), "int64")]
    assert "blocks.1.b.index" not in taken(match(source, side("blocks.{}.b", (4, 4))))
