"""Plan by names: which tensor of the file goes to which key of the model, and why.

    selection   only, drop, rename
    wrappers    prefixes of DataParallel, torch.compile and training frameworks
    migration   what the model's own modules do to old keys
    aliases     the other names that PyTorch itself has given to a tensor
    structural  layers instead of names, where that is asked for
    settle      one line for each slot: shapes, dtypes, tied memory
    findings    what has to be said, with the fixes

Each is a function of plain data; nothing is guessed.  Linear in the number of keys, and the same to the byte whatever
PYTHONHASHSEED is: no set is iterated into the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from loadstone.errors import Diagnostic, Fix, worst_first
from loadstone.matching.aliases import may_be_absent, may_be_left_over, respell
from loadstone.matching.candidates import Candidate, by_name
from loadstone.matching.coverage import coverage
from loadstone.matching.findings import Findings
from loadstone.matching.fitting import Fitter
from loadstone.matching.key_rules import rules_for
from loadstone.matching.migration import Compute, Migrate, Read
from loadstone.matching.nearmiss import near_misses
from loadstone.matching.options import Options
from loadstone.matching.plan import Action, Plan
from loadstone.matching.recipe import changed_since, hashes_of, options_table
from loadstone.matching.schema import Schema, Slot
from loadstone.matching.selection import select, unused_option
from loadstone.matching.settle import Computed, Settled, settle
from loadstone.matching.structural import by_structure, fitting
from loadstone.matching.structure.items import Assignment, Question
from loadstone.matching.wrappers import align
from loadstone.tensors import TensorInfo

_NONE: Mapping[str, TensorInfo] = {}
_NO_METADATA: Mapping[str, Mapping[str, object]] = {}


def make_plan(
    schema: Schema,
    sources: Mapping[str, TensorInfo],
    options: Options,
    *,
    source_name: str,
    target_name: str,
    weights: str = "",
    not_for_model: Mapping[str, TensorInfo] = _NONE,
    notes: Iterable[Diagnostic] = (),
    metadata: Mapping[str, Mapping[str, object]] = _NO_METADATA,
    migrate: Migrate | None = None,
) -> Plan:
    """How `sources` fit `schema`, computed from headers alone.

    Args:
        schema: the model's side.
        sources: the weight set, by the file's own keys.
        options: what was decided about keys.
        source_name, target_name, weights: what screens call the two sides and the weight set.
        not_for_model: other tensors of the file (an optimizer's), which get a line and no finding.
        notes: what was noticed about the checkpoint.
        metadata: layer versions by module, as in `state_dict()._metadata`; `migrate` has its own access to them.
        migrate: runs the model's own state dict hooks over the tensors, by model keys.

    Raises RecipeError (invalid-option) for an option with a wrong value.
    """
    fitter = Fitter(options, schema.slots)
    selection = select(sources, options)

    def is_soft(slot: Slot) -> bool:
        return slot.tied_to is not None or may_be_absent(slot) is not None or fitter.fresh_pattern(slot.key) is not None

    alignment = align(selection.candidates, schema, is_soft)
    migrated = _migrated(alignment.candidates, migrate)
    candidates = respell(migrated.candidates, schema)
    claims = by_name(candidates)
    settled = settle(schema, claims, migrated.computed, fitter)

    leftover: list[Action] = [*selection.dropped, *migrated.dropped]
    structural: list[Diagnostic] = []
    unexpected: list[Candidate] = []
    table, rules = options_table(options), {}
    compositions: Mapping[str, Assignment] = {}
    questions: tuple[Question, ...] = ()
    admissible = 0.0
    if options.match == "structure" and (options.rules or options.answers or not _is_settled(settled, claims, schema)):
        names = {one.name for one in candidates}
        structure = by_structure(
            schema,
            candidates,
            lambda key: (
                key in migrated.computed or (fitter.is_decided(key) and (key in names or not fitter.is_adapted(key)))
            ),
            options,
        )
        claims = by_name(structure.candidates)
        settled = settle(schema, claims, {**migrated.computed, **structure.computed}, fitter)
        settled.wait(structure.waiting)
        settled.keep(structure.kept)
        settled.explain(structure.nearest)
        unexpected += structure.unplaced
        leftover += [*structure.lines, *(_unplaced(one) for one in structure.unplaced)]
        hashes = hashes_of(sources, schema.slots)
        structural += [*structure.findings, *changed_since(options, hashes)]
        compositions = structure.assignments
        questions, admissible = structure.questions, structure.admissible
        rules = rules_for(compositions, {key: info.shape for key, info in sources.items()}, schema.slots)
        table |= {"rules": rules, "hashes": hashes} if rules else {}
    collisions: list[tuple[str, list[Candidate]]] = []
    for name, members in claims.items():
        if name in schema.slots:
            continue
        harmless = may_be_left_over(members[0], schema)
        if harmless is not None:
            leftover += [Action("dropped", one.key, None, *harmless) for one in members]
        elif len(members) > 1:
            collisions.append((name, members))
            leftover += [
                Action("ambiguous", one.key, None, one.how, f"goes to `{name}` like others") for one in members
            ]
        else:
            unexpected += members
            leftover.append(_unexpected(members[0]))
    leftover += settled.spare

    doubts = list(coverage(schema, sources, settled.actions, alignment.fixes, strict=options.strict))
    if any(finding.code == "open-question" for finding in structural):
        doubts = [doubt for doubt in doubts if not options.strict]  # what waits for an answer is no other architecture
    findings = Findings(schema.slots, sources, strict=options.strict)
    is_refused = any(finding.code == "no-structural-match" for finding in structural)
    if is_refused:  # says already that nothing is loaded, and why
        doubts = [doubt for doubt in doubts if doubt.code != "nothing-to-load"]
    pairs = [] if is_refused else near_misses(settled.missing, unexpected)
    explained = sum(len(pair.keys) for pair in pairs) if len(pairs) <= _MOST_RENAMES else 0
    if options.match == "names" and len(settled.missing) > explained:
        structural += _note(schema, candidates, settled)
    found = [
        *migrated.failed,
        *doubts,
        *structural,
        *findings.contested(settled),
        *findings.collisions([[collision] for collision in collisions]),
        *findings.tied(settled),
        *findings.mismatched(settled),
        *findings.without_values(settled),
        *findings.missing(settled.missing, pairs, alignment.fixes),
        *findings.unexpected(unexpected, pairs),
        *findings.casts(settled),
        *(unused_option(option, pattern, sources) for option, pattern in selection.unused),
        *(unused_option(option, pattern, schema.slots) for option, pattern in fitter.unused),
        *alignment.notes,
        *migrated.notes,
        *notes,
    ]
    if doubts:
        found = list(map(_without_giving_up, found))
    order = {key: index for index, key in enumerate(sources)}
    leftover.sort(key=lambda action: order[str(action.source)])
    others = [Action("dropped", key, None, "not for a model") for key in not_for_model if key not in sources]
    return Plan(
        source_name,
        target_name,
        (*settled.actions.values(), *leftover, *others),
        worst_first(found),
        sources,
        schema,
        weights,
        table,
        rules,
        compositions,
        questions,
        admissible,
    )


def _is_settled(settled: Settled, claims: Mapping[str, list[Candidate]], schema: Schema) -> bool:
    """Names say for every key on both sides what happens to it."""
    if settled.missing or settled.unfit or settled.contested or settled.conflicts:
        return False
    return all(
        name in schema.slots or may_be_left_over(members[0], schema) is not None for name, members in claims.items()
    )


_LEAST_OPEN = 0.10  # of the model's tensors; where names settle more than the rest, names are not what is wrong
_MOST_RENAMES = 3  # that are likelier than another implementation
_MOST_KEYS = 5_000  # on a side; the engine takes seconds for more, and nobody asked for it


def _note(schema: Schema, candidates: list[Candidate], settled: Settled) -> Iterator[Diagnostic]:
    """fits-by-structure, where names leave much open that structure settles."""
    wanted = [slot for slot in schema.slots.values() if slot.tied_to is None and may_be_absent(slot) is None]
    by_names = sum(settled.actions[slot.key].status == "load" for slot in wanted)
    if len(wanted) - by_names <= _LEAST_OPEN * len(wanted) or max(len(wanted), len(candidates)) > _MOST_KEYS:
        return
    found = fitting(schema, candidates)
    settles = sum(slot.key in found.assignments for slot in wanted)
    if found.verdict == "refused" or settles <= by_names:
        return
    asked = len(found.questions)
    asks = f", {asked} question{'s' if asked > 1 else ''}" if asked else ""
    message = f"by structure, {settles:,} of {len(wanted):,} tensors of the model find their source{asks}"
    yield Diagnostic("fits-by-structure", message, fixes=(Fix("match layers instead of names", 'match="structure"'),))


def _unplaced(candidate: Candidate) -> Action:
    return Action("unexpected", candidate.key, None, "no place by structure", "its name alone is no reason")


def _without_giving_up(finding: Diagnostic) -> Diagnostic:
    """Where this is probably the wrong model, nobody should be told to leave most of it out."""
    if finding.code not in ("missing-key", "unexpected-key"):
        return finding
    kept = tuple(fix for fix in finding.fixes if not fix.paste.startswith(("fresh=", "drop=")))
    return replace(finding, fixes=kept)


def _unexpected(candidate: Candidate) -> Action:
    how = "no such key in the model"
    if candidate.name != candidate.key:
        how = f"no `{candidate.name}` in the model"
    return Action("unexpected", candidate.key, None, how)


@dataclass(slots=True)
class _Migrated:
    """Candidates after the model's own hooks, and what these did."""

    candidates: list[Candidate]
    computed: dict[str, Computed] = field(default_factory=dict)
    dropped: list[Action] = field(default_factory=list)
    notes: list[Diagnostic] = field(default_factory=list)
    failed: tuple[Diagnostic, ...] = ()


def _migrated(candidates: list[Candidate], migrate: Migrate | None) -> _Migrated:
    """Let the model's own hooks rename, make and take away; keys that two candidates claim are kept out of it."""
    if migrate is None:
        return _Migrated(candidates)
    claims = by_name(candidates)
    single = {name: members[0] for name, members in claims.items() if len(members) == 1}
    migration = migrate({name: candidate.info for name, candidate in single.items()})
    now = {old: new for new, old in migration.moved.items()}
    result = _Migrated([], failed=migration.failed)
    moved = []
    for candidate in candidates:
        name = candidate.name
        if name not in single:
            result.candidates.append(candidate)
        elif name in now:
            moved.append(f"`{candidate.key}` is `{now[name]}`")
            result.candidates.append(candidate.renamed(now[name], "renamed by the module's own hook"))
        elif name in migration.removed and name not in migration.computed:
            result.dropped.append(
                Action("dropped", candidate.key, None, "the module's own hook", migration.removed[name])
            )
        else:
            result.candidates.append(candidate)
    keys = {name: candidate.key for name, candidate in single.items()}
    for name, compute in migration.computed.items():
        result.computed[name] = Computed(_over_checkpoint_keys(compute, keys), *migration.shapes[name])
    if moved:
        count = "1 key" if len(moved) == 1 else f"{len(moved):,} keys"
        message = f"{count} renamed by the model's own hooks: {moved[0]}"
        changed = tuple(now[name] for name in single if name in now)
        result.notes.append(Diagnostic("old-name", message, keys=changed))
    return result


def _over_checkpoint_keys(compute: Compute, keys: Mapping[str, str]) -> Compute:
    """The hook's function, reading by the keys of the checkpoint instead of the model's."""

    def computed(read: Read) -> object:
        return compute(lambda name: read(keys[name]))

    return computed
