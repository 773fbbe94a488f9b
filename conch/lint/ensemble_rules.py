"""Rules R26 to R31: an ensemble, its members, and the tensors between them.

What Triton refuses here was tried on tritonserver 2.51, or stands in its sources:
https://github.com/triton-inference-server/core/blob/main/src/ensemble_scheduler/ensemble_utils.cc
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conch.errors import nearest
from conch.lint.context import Context
from conch.lint.ensemble_graph import End, Graph, Member, edge, graph_of, member_of, unreachable_steps
from conch.lint.finding import Fault
from conch.lint.model import ModelFolder
from conch.lint.rules import rule
from conch.model_config import ModelConfigMessage

# The first release whose ensembles know `max_inflight_requests`; an older one refuses a config that has it.
_INFLIGHT_LIMIT_SINCE = "25.12"


def _is_ensemble(config: ModelConfigMessage) -> bool:
    return bool(config.platform == "ensemble" or config.HasField("ensemble_scheduling"))


def _members(config: ModelConfigMessage, context: Context) -> dict[str, Member]:
    """The members that can be looked at, by name; one in a namespace of its own may be another model of that name."""
    found: dict[str, Member] = {}
    for step in config.ensemble_scheduling.step:
        model = None if step.model_namespace else context.models.get(step.model_name)
        member = member_of(model) if model else None
        if member is not None:
            found[step.model_name] = member
    return found


@rule("R26", "error", "an ensemble with settings that only a model has")
def nothing_to_run(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """An ensemble has no instance of its own: Triton refuses backend, instance_group, optimization and model_warmup.

    Set them in the members' configs. An ensemble says `platform: "ensemble"` and has ensemble_scheduling.
    """
    config = model.config
    assert config is not None
    if not _is_ensemble(config):
        return
    said = (
        ("backend", bool(config.backend), f'backend: "{config.backend}"'),
        ("instance_group", bool(config.instance_group), f"{len(config.instance_group)} instance groups"),
        ("optimization", config.HasField("optimization"), "optimization"),
        ("model_warmup", bool(config.model_warmup), f"{len(config.model_warmup)} model_warmup"),
    )
    for field, there, got in said:
        if there:
            yield Fault(
                f"an ensemble cannot have {field}: Triton does not load it",
                got=got,
                expected=f"no {field}",
                fix=f"take {field} out here; set it in the members' configs",
                place=field,
            )
    if config.platform != "ensemble":
        yield Fault(
            "a config with ensemble_scheduling is not said to be an ensemble",
            got=f'platform: "{config.platform}"',
            expected='platform: "ensemble"',
            fix='write platform: "ensemble"',
            place="platform",
        )
    if not config.ensemble_scheduling.step:
        yield Fault(
            "the ensemble has no steps",
            got="no step in ensemble_scheduling",
            expected="a step for each member",
            fix="write ensemble_scheduling { step { model_name: ... input_map { ... } output_map { ... } } }",
            place="ensemble_scheduling",
        )


@rule("R27", "error", "an ensemble that is wired wrongly")
def wiring(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Each tensor is written once and read, each member's input is mapped, and both ends of an edge agree.

    In a map, the key is the member's own tensor, the value the ensemble's name for it. Triton refuses the ensemble
    otherwise, when its members are loaded.
    """
    config = model.config
    assert config is not None
    if not config.HasField("ensemble_scheduling"):
        return
    members = _members(config, context)
    graph = graph_of(model.name, config, members)
    for index, step in enumerate(config.ensemble_scheduling.step):
        yield from _step_faults(model.name, index, step, members.get(step.model_name), context)
    yield from _flow_faults(model.name, config, graph)
    for tensor, writer, reader in graph.edges():
        yield from _edge_faults(model.name, tensor, writer, reader)


def _step_faults(ensemble: str, index: int, step: Any, member: Member | None, context: Context) -> Iterator[Fault]:
    place = f"step[{step.model_name or index}]"
    if not step.model_namespace and step.model_name not in context.models:
        close = nearest(step.model_name, context.models)
        yield Fault(
            "a step names a model that is not there",
            got=f'model_name: "{step.model_name}"',
            expected="a model of the repository: " + ", ".join(sorted(context.models)[:20]),
            fix=f"did you mean {close}?" if close else "add the model, or name its repository too",
            place=f"{place}.model_name",
        )
    for field, mapped in (("input_map", step.input_map), ("output_map", step.output_map)):
        if not mapped:
            yield Fault(
                f"a step has no {field}",
                got="none",
                expected=f"{field} {{ key: <{step.model_name}'s tensor> value: <the ensemble's> }}",
                fix=f"map at least one tensor in {field}",
                place=f"{place}.{field}",
            )
    if member is not None:
        yield from _unknown_names(place, "input", step.input_map, member.inputs, step.model_name)
        yield from _unknown_names(place, "output", step.output_map, member.outputs, step.model_name)
        for end in (member.inputs or {}).values():
            if end.tensor not in step.input_map and not end.optional:
                yield Fault(
                    "an input of a member is left unmapped",
                    got=f"{place} maps {_names(step.input_map)}",
                    expected=f"{end.describe()} mapped to a tensor of the ensemble",
                    fix=f'add input_map {{ key: "{end.tensor}" value: "..." }}',
                    place=f"{ensemble}: ? -> {end.model}.{end.tensor}",
                )


def _unknown_names(place: str, kind: str, mapped: Any, known: Any, name: str) -> Iterator[Fault]:
    if known is None:
        return
    for own in sorted(mapped):
        if own not in known:
            close = nearest(own, known)
            rule_of_maps = "the key is the member's name for the tensor, the value the ensemble's"
            yield Fault(
                f"a map names an {kind} that the member does not have",
                got=f'{kind}_map {{ key: "{own}" }}',
                expected=f"{kind}s of {name}: {_names(known)}",
                fix=f"did you mean {close}? ({rule_of_maps})" if close else rule_of_maps,
                place=f"{place}.{kind}_map[{own}]",
            )


def _flow_faults(ensemble: str, config: ModelConfigMessage, graph: Graph) -> Iterator[Fault]:
    outer = {t.name for t in config.input}
    for tensor, writers in sorted(graph.written.items()):
        if len(writers) > 1:
            labels = [w.label for w in writers]
            yield Fault(
                "a tensor is written twice",
                got=" and ".join(labels),
                expected="one writer",
                fix="give each its own name in output_map",
                place=f"{ensemble}: {tensor}",
                # tritonserver 2.51 loads an ensemble that writes over its own input; which one is read is left open.
                severity="warning" if tensor in outer and len(writers) == 2 else None,
            )
        if tensor not in graph.read:
            yield Fault(
                "a tensor is not used",
                got=f"{writers[0].label} is written to {tensor}, and nobody reads it",
                expected="a step that reads it, or an output of that name",
                fix=f"take {tensor} out of the config, or map it to an input",
                place=f"{ensemble}: {writers[0].label} -> ?",
            )
    unwritten = [t for t in sorted(graph.read) if t not in graph.written]
    for tensor in unwritten:
        close = nearest(tensor, graph.written)
        yield Fault(
            "a tensor is read, and nothing writes it",
            got=f"{graph.read[tensor][0].label} reads {tensor}",
            expected=f"one of {_names(graph.written)}",
            fix=f"did you mean {close}?" if close else f"write {tensor} from an output of a step",
            place=f"{ensemble}: ? -> {graph.read[tensor][0].label}",
        )
    if not unwritten and (circle := unreachable_steps(config)):
        yield Fault(
            "steps wait for each other in a circle",
            got=" -> ".join(circle),
            expected="every step can run once the inputs and earlier steps are there",
            fix="break the circle: no step may read what depends on its own output",
            place=f"{ensemble}: {', '.join(circle)}",
        )


def _edge_faults(ensemble: str, tensor: str, writer: End, reader: End) -> Iterator[Fault]:
    if not writer.agrees_in_type(reader):
        wrong = "types"
    elif not writer.agrees_in_shape(reader):
        wrong = "shapes"
    else:
        return
    whole = writer.batched != reader.batched
    yield Fault(
        f"{wrong} differ along an edge",
        got=writer.describe(whole=whole),
        expected=reader.describe(whole=whole),
        fix=f"let both declare the same for {tensor}, or put a step between them that converts it",
        place=edge(ensemble, writer, reader),
    )


def _names(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


@rule("R28", "error", "an ensemble that takes larger batches than a member")
def batch_sizes(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton refuses an ensemble whose max_batch_size is over that of a member that has batches.

    Lower the ensemble's, or raise the member's.
    """
    config = model.config
    assert config is not None
    for name, member in _members(config, context).items():
        if member.max_batch_size and member.max_batch_size < config.max_batch_size:
            yield Fault(
                "a member takes smaller batches than the ensemble promises",
                got=f"max_batch_size: {config.max_batch_size}, {name}: {member.max_batch_size}",
                expected=f"at most {member.max_batch_size}",
                fix=f"write max_batch_size: {member.max_batch_size}, or raise that of {name}",
                place="max_batch_size",
            )


@rule("R29", "error", "a step pinned to a version that is not served")
def pinned_versions(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """A pinned member version must be one that the member's version policy keeps, or the ensemble cannot be loaded.

    With the default policy the next version that is dropped retires it. Write -1 for the latest, or give the member a
    policy that names the version. Nothing at all stands for version 0, which no model has.
    """
    config = model.config
    assert config is not None
    for step in config.ensemble_scheduling.step:
        if step.model_version != -1 and not step.model_namespace:
            member = context.models.get(step.model_name)
            if member is not None and member.config is not None:
                yield from _pin_faults(step, member)


def _pin_faults(step: Any, member: ModelFolder) -> Iterator[Fault]:
    number, place = step.model_version, f"step[{step.model_name}].model_version"
    if number == 0:
        yield Fault(
            "a step names no version of its member, which stands for version 0",
            got="model_version is missing or 0",
            expected="-1 for the latest, or a version",
            fix="write model_version: -1",
            place=place,
        )
        return
    served = [v.number for v in member.served]
    policy = _policy(member.config)
    keep = f"version_policy {{ specific {{ versions: [{number}] }} }} in {member.name}"
    if number not in served:
        there = any(v.number == number for v in member.versions)
        yield Fault(
            "a step is pinned to a version that its member does not serve",
            got=f"model_version: {number}; {member.name} has "
            + (f"it, and serves {served} by {policy}" if there else f"versions {[v.number for v in member.versions]}"),
            expected=f"one of {served}, or -1 for the latest" if served else "a version that is served",
            fix=f"write model_version: -1, or {keep}" if there else "write model_version: -1",
            place=place,
        )
    elif member.config is not None and _keeps_latest(member.config) and number == min(served):
        yield Fault(
            "the member's version policy retires the pinned version when the next one comes",
            got=f"model_version: {number}; {member.name} serves {served} by {policy}",
            expected="-1 for the latest, or a policy that names the version",
            fix=f"write model_version: -1, or {keep}",
            place=place,
            severity="warning",
        )


def _keeps_latest(config: ModelConfigMessage) -> bool:
    """Whether the policy drops old versions: it does by default."""
    return not config.HasField("version_policy") or config.version_policy.WhichOneof("policy_choice") == "latest"


def _policy(config: ModelConfigMessage) -> str:
    kind = config.version_policy.WhichOneof("policy_choice")
    if kind == "specific":
        return f"version_policy specific {list(config.version_policy.specific.versions)}"
    if kind == "latest":
        return f"version_policy latest {config.version_policy.latest.num_versions}"
    return "version_policy all" if kind == "all" else "the default policy, the latest one"


@rule("R30", "error", "a response cache where answers cannot be cached")
def cacheable(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """Triton refuses the cache for decoupled models and sequences, and for ensembles with a decoupled member.

    A member that keeps a sequence's state is not refused, but answers from the cache skip it. Take response_cache out.
    """
    config = model.config
    assert config is not None
    if not config.response_cache.enable:
        return
    members = _members(config, context).values()
    reasons = [
        ("a decoupled model sends any number of answers", config.model_transaction_policy.decoupled, "decoupled: true"),
        ("a sequence's answers depend on what came before", config.HasField("sequence_batching"), "sequence_batching"),
    ]
    reasons += [(f"member {m.name} is decoupled, and so is the ensemble", m.decoupled, m.name) for m in members]
    reasons += [(f"member {m.name} keeps the state of sequences", m.stateful, m.name) for m in members]
    for why, holds, got in reasons:
        if holds:
            yield Fault(
                f"the response cache cannot be used: {why}",
                got=f"response_cache {{ enable: true }} with {got}",
                expected="no response_cache",
                fix="take response_cache out",
                place="response_cache",
                severity="warning" if why.endswith("sequences") else None,
            )


@rule("R31", "warning", "a decoupled member that nothing holds back")
def inflight_limit(model: ModelFolder, context: Context) -> Iterator[Fault]:
    """A decoupled member can answer faster than the steps after it take; what waits between them has no limit.

    From release 25.12 on, `max_inflight_requests` in ensemble_scheduling sets one. An older server does not know the
    field and refuses the whole config; there, bound it in the member, or call the later steps from it.
    """
    config = model.config
    assert config is not None
    if not _is_ensemble(config):
        return
    limit = config.ensemble_scheduling.max_inflight_requests
    known = _number(context.release.tag) >= _number(_INFLIGHT_LIMIT_SINCE)
    if limit and not known:
        yield Fault(
            f"the target {context.release.tag} does not know max_inflight_requests, and refuses the config",
            got=f"max_inflight_requests: {limit}",
            expected=f"release {_INFLIGHT_LIMIT_SINCE} or newer, or no such field",
            fix="take max_inflight_requests out, or choose a newer --target",
            place="ensemble_scheduling.max_inflight_requests",
            severity="error",
        )
    if limit:
        return
    read = {t for step in config.ensemble_scheduling.step for t in step.input_map.values()}
    members = _members(config, context)
    for step in config.ensemble_scheduling.step:
        member = members.get(step.model_name)
        if member is not None and member.decoupled and read & set(step.output_map.values()):
            fix = "write max_inflight_requests: 16 in ensemble_scheduling"
            if not known:
                fix = f"bound the answers in {step.model_name}, or call the later steps from it"
            yield Fault(
                "a decoupled member may answer faster than the next steps take: memory grows without a limit",
                got=f"{step.model_name} is decoupled, max_inflight_requests is not set",
                expected="a limit on requests in flight",
                fix=fix,
                place=f"step[{step.model_name}]",
                # Nothing in the configuration of an older release could mend it.
                severity=None if known else "note",
            )


def _number(tag: str) -> tuple[int, ...]:
    return tuple(int(part) for part in tag.split(".") if part.isdecimal())
