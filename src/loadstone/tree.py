"""Walking a file's values: children by name, every tensor by dotted key, and how large a tree is when it is spelt out.

The values of a pickle are a graph, not a tree: things are shared, and objects point back at their owners.  Here a plain
container that is shared is walked at each of its places (`{"model": s, "best": s}` has both), an object only at the
first, and nothing inside itself.  `check_expansion` has to be called once on a graph from a file: after it, spelling
the tree out is bounded by `limits.nodes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from loadstone.io.limits import Limits
from loadstone.tensors import TensorInfo
from loadstone.values import Opaque, SavedModule, Value

_CONTAINERS = (dict, list, tuple, set, frozenset, Opaque)


def children(value: Value) -> list[tuple[str, Value]]:
    """The named children of a container; of an object, its attributes and what was put into it; else nothing."""
    if isinstance(value, dict):
        return [(_text(key), child) for key, child in value.items()]
    if isinstance(value, (list, tuple)):
        return [(str(index), child) for index, child in enumerate(value)]
    if isinstance(value, SavedModule):
        return [*value.state_dict.items(), *value.non_persistent.items()]
    if isinstance(value, Opaque):
        return list(_object_children(value))
    return []


def join(parent: str, name: str) -> str:
    """The dotted key of a child."""
    return f"{parent}.{name}" if parent else name


def check_expansion(tree: Value, limits: Limits) -> None:
    """Raise LimitError where the tree, spelt out, has more than `limits.nodes` values or is deeper than `limits.depth`.

    Takes time linear in the number of distinct values, however many places they are shared at.
    """
    sizes: dict[int, int] = {}  # of containers that are done, spelt out
    on_path: set[int] = set()
    stack: list[tuple[Value, bool]] = [(tree, False)]
    while stack:
        value, is_done = stack.pop()
        identity = id(value)
        inner = [child for _, child in children(value) if isinstance(child, _CONTAINERS)]
        if is_done:
            on_path.discard(identity)
            size = len(children(value)) + 1
            for child in inner:
                size += 1 if isinstance(child, Opaque) else sizes.get(id(child), 1)
            limits.check("nodes", size, "spelling out the values of this file")
            sizes[identity] = size
        elif identity not in sizes and identity not in on_path:
            on_path.add(identity)
            limits.check("depth", len(on_path), "the values of this file, nested,")
            stack.append((value, True))
            stack.extend((child, False) for child in reversed(inner))


def every_tensor(tree: Value) -> dict[str, TensorInfo]:
    """All tensors of a tree by dotted key, in the order of the file; what is shared stands at each of its places.

    Where two places come out as the same dotted key, the later one has `#2` behind it.
    """
    found: dict[str, TensorInfo] = {}
    useful = _leading_to_tensors(tree)
    on_path: set[int] = set()
    objects: set[int] = set()
    stack: list[tuple[str, Value, bool]] = [("", tree, False)]
    while stack:
        key, value, is_done = stack.pop()
        identity = id(value)
        if isinstance(value, TensorInfo):
            found[free_key(key, found)] = value.with_key(key)
        elif is_done:
            on_path.discard(identity)
        elif identity in useful and identity not in on_path and identity not in objects:
            on_path.add(identity)
            if isinstance(value, Opaque) and not isinstance(value, SavedModule):
                objects.add(identity)
            stack.append((key, value, True))
            stack.extend((join(key, name), child, False) for name, child in reversed(children(value)))
    return found


def materialised(value: Value) -> Value:
    """A copy of the tree with torch tensors in place of TensorInfos; objects stay records, what is shared stays shared.

    Raises what `TensorInfo.read` raises.  The tree has passed `check_expansion`, so its depth is bounded.
    """
    made: dict[int, Value] = {}
    stack: list[tuple[Value, bool]] = [(value, False)]
    while stack:
        item, is_done = stack.pop()
        identity = id(item)
        if identity in made or not isinstance(item, (dict, list, tuple, TensorInfo)):
            continue
        if isinstance(item, TensorInfo):
            made[identity] = item.read()
        elif is_done:
            made[identity] = _rebuilt(item, made)
        else:
            stack.append((item, True))
            stack.extend((child, False) for child in (item.values() if isinstance(item, dict) else item))
    return made.get(id(value), value)


def _rebuilt(item: Value, made: dict[int, Value]) -> Value:
    if isinstance(item, dict):
        return {key: made.get(id(child), child) for key, child in item.items()}
    return type(item)(made.get(id(child), child) for child in item)


def _leading_to_tensors(tree: Value) -> set[int]:
    """Identities of the containers that have a tensor somewhere below them."""
    parents: dict[int, list[int]] = {}
    direct: list[int] = []
    stack: list[Value] = [tree]
    seen = {id(tree)}
    while stack:
        value = stack.pop()
        for _, child in children(value):
            if isinstance(child, TensorInfo):
                direct.append(id(value))
            elif isinstance(child, _CONTAINERS):
                parents.setdefault(id(child), []).append(id(value))
                if id(child) not in seen:
                    seen.add(id(child))
                    stack.append(child)
    useful: set[int] = set()
    while direct:
        identity = direct.pop()
        if identity not in useful:
            useful.add(identity)
            direct.extend(parents.get(identity, ()))
    return useful


def _object_children(value: Opaque) -> Iterator[tuple[str, Value]]:
    if isinstance(value.state, dict):
        yield from children(value.state)
    elif value.state is not None:
        yield "state", value.state
    yield from ((str(index), child) for index, child in enumerate(value.items))
    yield from ((_text(key), child) for key, child in value.entries.items())
    if value.args:
        yield "args", value.args


def _text(key: Value) -> str:
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)


def free_key(key: str, taken: Mapping[str, object]) -> str:
    """The key, or with `#2`, `#3` … behind it the first that is not taken."""
    number = 1
    free = key
    while free in taken:
        number += 1
        free = f"{key}#{number}"
    return free
