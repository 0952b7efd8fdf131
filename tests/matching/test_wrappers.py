"""Prefixes of wrappers: taken off or put on where they explain the keys, and never inside a name."""

import ast

import pytest


def hows(plan):
    return {action.how for action in plan.actions}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net.", "backbone.", "model._orig_mod."])
def test_wrapper_prefix_on_all_keys_is_taken_off_and_said(plan_of, prefixed, net, prefix):
    plan = plan_of(net, prefixed(prefix, net))
    assert plan.ok
    assert hows(plan) == {f"prefix `{prefix}` removed"}
    assert [one.code for one in plan.diagnostics] == ["prefix-removed"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.model."])
def test_wrapper_prefix_of_the_model_is_put_on(plan_of, prefixed, net, prefix):
    plan = plan_of(prefixed(prefix, net), net)
    assert plan.ok
    assert hows(plan) == {f"prefix `{prefix}` added"}


def test_prefix_of_the_file_is_exchanged_for_that_of_the_model(plan_of, prefixed, net):
    assert plan_of(prefixed("module.", net), prefixed("_orig_mod.", net)).ok


def test_prefix_on_all_but_one_stray_key_is_taken_off_the_others(plan_of, prefixed, net):
    plan = plan_of(net, {**prefixed("module.", net), "stray": (1,)})
    assert len(plan.loaded) == len(net)
    assert plan.unexpected_keys == ["stray"]
    assert not plan.ok


def test_bare_key_among_prefixed_ones_is_matched_exactly(plan_of, prefixed, net):
    checkpoint = prefixed("module.", net)
    checkpoint["fc.bias"] = checkpoint.pop("module.fc.bias")
    assert plan_of(net, checkpoint).ok


def test_prefixed_and_bare_key_for_one_target_are_an_error_naming_both(plan_of, prefixed, net):
    plan = plan_of(net, {**prefixed("module.", net), "fc.bias": (10,)})
    (finding,) = [one for one in plan.diagnostics if one.code == "ambiguous-match"]
    assert "`module.fc.bias` and `fc.bias`" in finding.message
    assert plan.ambiguous_keys == ["fc.bias"]


def test_fix_for_two_sources_settles_it(plan_of, prefixed, net):
    checkpoint = {**prefixed("module.", net), "fc.bias": (10,)}
    (finding,) = [one for one in plan_of(net, checkpoint).diagnostics if one.code == "ambiguous-match"]
    for fix in finding.fixes:
        assert plan_of(net, checkpoint, drop=tuple(ast.literal_eval(fix.paste.removeprefix("drop=")))).ok


def test_bert_with_and_without_its_body_prefix_is_an_error_naming_both(plan_of, net):
    plan = plan_of(net, {**net, "bert.fc.weight": (10, 8)})
    (finding,) = [one for one in plan.diagnostics if one.code == "ambiguous-match"]
    assert finding.keys == ("fc.weight", "bert.fc.weight")
    assert not plan.ok


def test_two_whole_copies_are_ambiguous_even_when_not_strict(plan_of, prefixed, net):
    plan = plan_of(net, {**net, **prefixed("student.", net)}, strict=False)
    assert plan.ambiguous_keys == list(net)
    assert not plan.ok


@pytest.mark.parametrize("prefix", ["modules.0.", "module_list.0.", "mymodule.", "submodel."])
def test_names_that_only_look_like_wrappers_stay(plan_of, prefixed, net, prefix):
    model = {**prefixed(prefix, net), "head": (3,)}
    assert hows(plan_of(model, model)) == {"same key"}
    plan = plan_of({**net, "head": (3,)}, {**prefixed(prefix, net), "head": (3,)})
    assert len(plan.loaded) == 1


def test_module_inside_a_name_is_never_replaced(plan_of):
    model = {"mymodule.weight": (2, 2), "a.submodule.module_x": (3,)}
    plan = plan_of(model, {f"module.{key}": shape for key, shape in model.items()})
    assert {action.source: action.target for action in plan.actions} == {f"module.{key}": key for key in model}


def test_orig_mod_in_the_middle_of_the_path_is_skipped_on_either_side(plan_of, net):
    compiled = {key.replace("layer1.", "layer1._orig_mod."): shape for key, shape in net.items()}
    assert plan_of(net, compiled).ok
    assert plan_of(compiled, net).ok


def test_orig_mod_inside_and_module_before_are_both_taken_off(plan_of, net):
    compiled = {"module." + key.replace("layer1.", "layer1._orig_mod."): shape for key, shape in net.items()}
    assert plan_of(net, compiled).ok


def test_data_parallel_around_a_part_is_skipped(plan_of):
    model = {"features.0.weight": (8, 3), "classifier.weight": (10, 8)}
    plan = plan_of(model, {"features.module.0.weight": (8, 3), "classifier.weight": (10, 8)})
    assert plan.ok
    assert plan.actions[0].how == "`module` skipped"


def test_unknown_prefix_that_explains_every_key_on_both_sides_is_taken(plan_of, prefixed, net):
    assert plan_of(net, prefixed("encoder.", net)).ok
    assert plan_of(prefixed("encoder.", net), net).ok


def test_unknown_prefix_that_explains_a_part_is_only_offered(plan_of, prefixed, net):
    plan = plan_of(net, {**prefixed("encoder.", net), "decoder.weight": (4, 4)}, strict=False)
    assert plan.loaded == []
    assert any(fix.paste == 'only=["encoder"]' for one in plan.diagnostics for fix in one.fixes)


def test_two_networks_in_one_file_are_not_chosen_between(plan_of, prefixed, net):
    checkpoint = {**prefixed("netG.", net), **prefixed("netD.", {"main.weight": (4, 4)})}
    plan = plan_of(net, checkpoint)
    assert plan.loaded == []
    assert any(fix.paste == 'only=["netG"]' for one in plan.diagnostics for fix in one.fixes)
    assert plan_of(net, checkpoint, only=("netG",)).ok


def test_rename_offered_for_a_longer_model_works_when_pasted(plan_of, prefixed, net):
    model = {**net, "new.weight": (5, 5)}
    checkpoint = prefixed("encoder.", net)
    pastes = [fix.paste for one in plan_of(model, checkpoint).diagnostics for fix in one.fixes]
    assert r'rename={r"^encoder\.": ""}' in pastes
    assert plan_of(model, checkpoint, rename={r"^encoder\.": ""}, fresh=("new",)).ok


def test_single_wrapped_tensor_of_another_shape_is_a_mismatch(plan_of):
    plan = plan_of({"weight": (10, 5)}, {"module.weight": (7, 5)})
    assert plan.mismatched_keys == ["weight"]


def test_option_globs_find_keys_behind_the_wrapper(plan_of, prefixed, net):
    plan = plan_of(net, prefixed("module.", net), drop=("fc",), fresh=("fc",))
    assert plan.ok
    assert len(plan.loaded) == 3
