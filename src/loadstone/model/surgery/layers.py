"""The verbs that take a name: `append`, `insert`, `replace`, `remove`.

A Sequential runs its children in order, so a layer can go in anywhere, and the numbers behind it move.  Any other
module runs what its own `forward` names: there a layer is appended behind it, with a hook that passes on what
`forward` returns, and one that is removed leaves an `nn.Identity` in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from loadstone.errors import Diagnostic, Fix, SurgeryError
from loadstone.model.schema import joined, modules_of
from loadstone.model.surgery.checked import check_editable, check_layer, module_at, parent_of
from loadstone.model.surgery.result import Edit, keys_of
from loadstone.model.surgery.steps import AddHook, Child, DropHook, RunChildAfter, SetChildren, Step


def append(model: nn.Module, parent: str, name: str, layer: nn.Module) -> Edit:
    """Add `layer` as the last child of the module `parent` ("" for the model), under `name`, and let it run.

    In a Sequential it runs last.  A ModuleList or ModuleDict only holds it: the model's own code says what runs.
    Any other module runs it on what its `forward` returns, by a forward hook: plain `add_module` would only store it.

    Raises SurgeryError (unknown-module, invalid-option, not-editable), the model untouched.
    """
    check_editable(model)
    check_layer(model, layer, "layer")
    module = module_at(model, parent)
    _check_name(module, parent, name)
    path = joined(parent, name)
    layer.train(module.training)
    before = tuple(module._modules.items())
    steps: list[Step] = [SetChildren(module, before, (*before, (name, layer)))]
    where = f"`{parent}`" if parent else "the model"
    if isinstance(module, nn.Sequential):
        note = f"runs last in {where}"
    elif isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        note = f"{where} is a {type(module).__name__}: the model's own code says whether it runs"
    else:
        note = f"runs on what {type(module).__name__}.forward returns, by a forward hook on {where}"
        steps.append(AddHook(module, RunChildAfter(name)))
    return Edit(
        f"appended `{path}` to {type(model).__name__}", [path], [(path, None, layer)], steps, notes=[note]
    ).done()


def insert(model: nn.Module, parent: str, index: int, layer: nn.Module) -> Edit:
    """Put `layer` before the child at `index` of the Sequential (or ModuleList) `parent`; the numbers behind it move.

    `index` counts as in `list.insert`, but must lie in it.  `edit.moved` has the keys of the state dict that moved.
    In a Sequential with names of its own no key moves, and the layer gets the first number that is free.

    Raises SurgeryError (unknown-module, invalid-option, not-editable), the model untouched.
    """
    check_editable(model)
    check_layer(model, layer, "layer")
    module = module_at(model, parent)
    if not isinstance(module, (nn.Sequential, nn.ModuleList)):
        where = f"`{parent}`" if parent else "the model"
        raise SurgeryError(
            Diagnostic(
                "not-editable",
                f"{where} is a {type(module).__name__}, whose own forward says what runs when; "
                "only a Sequential has an order to insert into",
                fixes=(Fix("behind all of it", f'ls.append(model, "{parent}", "name", layer)'),),
                keys=(parent,),
            )
        )
    count = len(module)
    if isinstance(index, bool) or not isinstance(index, int) or not -count <= index <= count:
        said = f"index={index!r} lies outside `{parent}`, which has {count} layers"
        raise SurgeryError(Diagnostic("invalid-option", said))
    index = index + count if index < 0 else index
    layer.train(module.training)
    before = tuple(module._modules.items())
    number = str(index) if _is_numbered(before) else _free_number(before)
    after = _renumbered([*before[:index], (number, layer), *before[index:]], before, parent)
    path = joined(parent, after[index][0])
    return Edit(
        f"inserted `{path}` into {type(model).__name__}",
        [path],
        [(path, None, layer)],
        [SetChildren(module, before, after)],
        moved=_moved(parent, before, [*after[:index], *after[index + 1 :]]),
    ).done()


def replace(model: nn.Module, name: str, layer: nn.Module) -> Edit:
    """Put `layer` in the place of the module called `name`.

    Raises SurgeryError (unknown-module, invalid-option, not-editable), the model untouched.
    """
    check_editable(model)
    check_layer(model, layer, "layer")
    parent, child = parent_of(model, name)
    old = module_at(model, name)
    layer.train(old.training)
    before = tuple(parent._modules.items())
    after = tuple((each, layer if each == child else module) for each, module in before)
    others = [path for path, module in modules_of(model) if module is old and path != name]
    notes = [f"the same module stays at `{other}`" for other in others]
    title = f"replaced `{name}` of {type(model).__name__}"
    return Edit(title, [name], [(name, old, layer)], [SetChildren(parent, before, after)], notes=notes).done()


def remove(model: nn.Module, name: str) -> Edit:
    """Take the module called `name` out.

    In a Sequential or ModuleList the numbers behind it move (`edit.moved`).  A layer that `append` put behind a module
    goes, with its hook.  Anywhere else `nn.Identity` takes its place, as the forward around it still calls it.

    Raises SurgeryError (unknown-module, invalid-option, not-editable), the model untouched.
    """
    check_editable(model)
    parent, child = parent_of(model, name)
    old = module_at(model, name)
    before = tuple(parent._modules.items())
    without = [(each, module) for each, module in before if each != child]
    title = f"removed `{name}` from {type(model).__name__}"
    hooks = [
        (key, hook)
        for key, hook in parent._forward_hooks.items()
        if isinstance(hook, RunChildAfter) and hook.child == child
    ]
    if hooks:
        steps: list[Step] = [DropHook(parent, key, hook) for key, hook in hooks]
        steps.append(SetChildren(parent, before, tuple(without)))
        return Edit(title, [name], [(name, old, None)], steps).done()
    if isinstance(parent, (nn.Sequential, nn.ModuleList)):
        above = name.rpartition(".")[0]
        after = _renumbered(without, before, above)
        moved = _moved(above, [each for each in before if each[0] != child], after)
        return Edit(title, [name], [(name, old, None)], [SetChildren(parent, before, after)], moved=moved).done()
    identity = nn.Identity()
    identity.train(old.training)
    after = tuple((each, identity if each == child else module) for each, module in before)
    note = f"{type(parent).__name__}.forward still calls it, so it lets everything through"
    return Edit(title, [name], [(name, old, identity)], [SetChildren(parent, before, after)], notes=[note]).done()


def _check_name(module: nn.Module, parent: str, name: str) -> None:
    """`name` must be a new child's name that torch accepts."""
    where = f"`{parent}`" if parent else "the model"
    if not isinstance(name, str) or not name or "." in name:
        raise SurgeryError(Diagnostic("invalid-option", f"name={name!r} is not the name of one module, without dots"))
    if name in module._modules:
        taken = joined(parent, name)
        fix = Fix("put another layer there", f'ls.replace(model, "{taken}", layer)')
        raise SurgeryError(Diagnostic("invalid-option", f"{where} has a module `{name}` already", fixes=(fix,)))
    if isinstance(module, nn.ModuleList) and name != str(len(module)):
        said = f'name={name!r}: {where} is a ModuleList, the next one in it is "{len(module)}"'
        raise SurgeryError(Diagnostic("invalid-option", said))
    if hasattr(module, name):
        said = f"{where} ({type(module).__name__}) has an attribute `{name}` already"
        raise SurgeryError(Diagnostic("invalid-option", said))


def _is_numbered(children: Sequence[Child]) -> bool:
    """The names are positions, as those of a Sequential made of plain arguments; layers with names may follow."""
    return not children or children[0][0] == "0"


def _free_number(children: Sequence[Child]) -> str:
    taken = {name for name, _ in children}
    return next(str(number) for number in range(len(children) + 1) if str(number) not in taken)


def _renumbered(children: Sequence[Child], before: Sequence[Child], parent: str) -> tuple[Child, ...]:
    """Children whose name was their position are called by their new one; other names stay."""
    positional = {name for place, (name, _) in enumerate(before) if name == str(place)}
    after = tuple((str(place) if name in positional else name, module) for place, (name, module) in enumerate(children))
    if len(dict(after)) < len(after):
        said = f"`{parent}` has numbers for names that are not positions, so that two layers would have one name"
        raise SurgeryError(Diagnostic("not-editable", said, keys=(parent,)))
    return after


def _moved(parent: str, before: Sequence[Child], after: Sequence[Child]) -> dict[str, str]:
    """Keys of the state dict that are called otherwise now, for children that are the same in the same order."""
    moved: dict[str, str] = {}
    for (old, module), (new, _) in zip(before, after, strict=True):
        if old != new:
            path = joined(parent, old)
            moved |= {key: joined(parent, new) + key[len(path) :] for key in keys_of(path, module)}
    return moved
