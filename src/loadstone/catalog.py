"""Every diagnostic code Loadstone can print: its severity, what it means and what to do about it.

One literal, a row a code.  `loadstone explain CODE` and docs/reference/diagnostics.md are printed from it,
and `Diagnostic` refuses a code that has no row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the catalog."""

    code: str
    severity: Severity
    title: str
    meaning: str
    advice: str


# fmt: off
_ROWS: tuple[tuple[str, Severity, str, str, str], ...] = (
    # --- the file -----------------------------------------------------------------------------------------------
    (
        "file-not-found", "error", "there is no such file",
        "The path names neither a file nor a directory.",
        "Check the path; the nearest names in that directory are listed.",
    ),
    (
        "not-a-checkpoint", "error", "the file is something else",
        "The first bytes belong to another kind of file: a web page, an image, an archive, an ONNX or HDF5 model.",
        "The message says what the file is. A web page means that the download link led to a page: download it again.",
    ),
    (
        "lfs-pointer", "error", "a Git LFS pointer stands where the file should be",
        "The repository was cloned without Git LFS, so the file holds three lines of text instead of the weights.",
        "Run `git lfs pull --include FILE` in that repository.",
    ),
    (
        "empty-file", "error", "the file has no bytes",
        "The program that wrote it died before its first byte, or the disk was full.",
        "Take an older checkpoint from the same directory.",
    ),
    (
        "truncated-file", "error", "the file ends too early",
        "The file is a checkpoint whose end is missing: a download or a save was cut off.",
        "Download or copy it again; its size should be the expected one.",
    ),
    (
        "unknown-format", "error", "no reader knows this file",
        "The first bytes belong to no format that Loadstone reads.",
        "Check how the file was written. The formats that were tried are listed.",
    ),
    (
        "unsupported-feature", "error", "the format is known, this part of it is not",
        "The file uses a feature that Loadstone does not read, such as encryption or a rare compression method.",
        "Write the file again without that feature.",
    ),
    (
        "header-invalid", "error", "the header contradicts itself or the file",
        "Offsets overlap, lie outside the file or leave holes, a key stands twice, or a length is impossible.",
        "The file is damaged or was made to mislead a reader. Get it again from its source.",
    ),
    (
        "corrupt-pickle", "error", "the pickle in the file is malformed",
        "An instruction of the pickle is unknown, runs past the end or finds nothing to work on.",
        "The file is damaged. Get it again from its source.",
    ),
    (
        "tensor-out-of-bounds", "error", "a tensor claims bytes its storage does not have",
        "Offset, shape and stride of a tensor must stay inside its storage. These do not.",
        "The file is damaged or was made to read foreign memory. Get it again from its source.",
    ),
    (
        "missing-record", "error", "a part the file refers to is not in it",
        "The pickle names a storage that has no record, or the record is shorter than it says.",
        "The file is damaged. Get it again from its source.",
    ),
    (
        "bad-compression", "error", "a compressed record cannot be expanded",
        "The deflate stream is damaged, or expands to another length than the file says.",
        "The file is damaged. Get it again from its source.",
    ),
    (
        "resource-limit", "error", "opening the file would need more than the limit",
        "Depth, number of instructions, expansion or size go past a limit that protects this machine.",
        "If you trust the file, raise that limit: `loadstone.open(path, limits=Limits(NAME=VALUE))`.",
    ),
    (
        "missing-shard", "error", "the index names a file that is not there",
        "A checkpoint in several files lacks one of them.",
        "Download the missing file into the same directory.",
    ),
    (
        "index-mismatch", "error", "the index and the shards disagree",
        "A tensor is not in the shard that the index names, or lies in a path outside the directory.",
        "Write the index again, or download the checkpoint again.",
    ),
    (
        "io-error", "error", "the disk or the network failed while reading",
        "The operating system reported an error.",
        "Look at the error of the operating system that is quoted; the disk may be failing.",
    ),
    (
        "address-refused", "error", "the address is not one that is opened",
        "Only http and https addresses of one file are opened, and redirects between them that do not leave https.",
        "Give the address of the file itself, or download it and give its path.",
    ),
    (
        "download-failed", "error", "the file cannot be downloaded",
        "The server refuses, is silent or not there, or the connection was cut several times. What has come is kept "
        "beside the final place as NAME.partial, and the next download goes on from it where the server allows that.",
        "The message says what the server answered. Without a network, download the file elsewhere and give its path.",
    ),
    (
        "hash-mismatch", "error", "the file is not the one that its name says",
        "The name carries the start of a SHA-256, as in `resnet18-f37072fd.pth`, and the bytes have another one: the "
        "file was replaced or damaged on its way. It was not kept.",
        "Compare the address with its source. If the digits are no hash, download the file yourself and give its path.",
    ),
    (
        "several-copies", "note", "the directory holds the weights more than once",
        "Two formats or variants of the same checkpoint lie side by side. The message says which one is read.",
        "Give the path of the file instead of the directory to read another one.",
    ),
    (
        "legacy-format", "note", "a file from before PyTorch 1.6",
        "The older stream format. Everything in it can be read.",
        "Nothing needs doing. `loadstone.save` writes the current format.",
    ),
    (
        "big-endian", "note", "the bytes are stored big-endian",
        "The file was written on a big-endian machine. Values are swapped as they are read.",
        "Nothing needs doing.",
    ),
    (
        "trailing-bytes", "note", "bytes follow the end of the format",
        "Something was added behind the checkpoint. It is not read.",
        "If you did not put them there, ask who did.",
    ),
    (
        "not-extracted", "note", "part of the file has no tensor form",
        "Packed parameters of compiled or quantised modules, extra state and script objects are listed but not read.",
        "Load them with the program that wrote them, in a place you trust.",
    ),
    (
        "bad-digest", "error", "bytes are not those that were written",
        "Loadstone writes a digest of every tensor and of the whole file. What is on the disk now has another one: a "
        "flipped bit, a hole, a block of another file.",
        "Take another copy or an older checkpoint: `loadstone list DIR` shows which ones are whole.",
    ),
    (
        "no-digest", "note", "nothing in the file says what its bytes should be",
        "The file was not written by Loadstone, or its format keeps no checksums: its structure can be checked, the "
        "values of its tensors cannot.",
        "Write it again with `loadstone.save`, which keeps a digest of every tensor.",
    ),
    (
        "bad-checksum", "error", "a record of the archive has another checksum",
        "A torch file is a zip, with a CRC-32 for each record. torch.load does not look at it. The bytes have changed "
        "since they were written.",
        "Take another copy or an older checkpoint.",
    ),
    (
        "zero-hole", "warning", "a stretch of zeros inside a tensor looks like a hole",
        "Whole blocks of the disk are zero in the middle of numbers that are not, and they do not coincide with a row "
        "of the tensor. A power cut can leave that where a file was not flushed. It is evidence, no proof.",
        "Compare the file with another copy, or look at these values.",
    ),
    (
        "invalid-manifest", "error", "what the file says about itself cannot be used",
        "Loadstone writes a manifest into its files: digests, architecture, versions. This one is damaged, or was "
        "written by a newer Loadstone.",
        "Run `loadstone verify FILE`. The weights can be read without it.",
    ),
    # --- safety -------------------------------------------------------------------------------------------------
    (
        "dangerous-global", "error", "the file asks for code to be run",
        "Its pickle calls something that is no data: a shell, an importer, an evaluator. Loadstone ran nothing.",
        "Do not open the file with `torch.load(weights_only=False)` or `pickle`. Report it where you found it.",
    ),
    (
        "misleading-pickle", "error", "the pickle is built as no program builds one",
        "A name computed while loading, a frame that ends inside an instruction, values left behind: such a pickle was "
        "made by hand, to look different to a scanner than to Python.",
        "Do not use the file. Get it again from its source.",
    ),
    (
        "unknown-global", "note", "the file names classes that are not part of PyTorch",
        "They are kept as inert records with their class name and their data.",
        "Nothing needs doing: no class is imported, and the tensors inside are found all the same.",
    ),
    (
        "contains-code", "note", "the archive carries program code",
        "TorchScript, torch.package and compiled exports carry code beside the weights. It was not run.",
        "Nothing needs doing to read the weights.",
    ),
    (
        "ambiguous-archive", "error", "two readers would see two different files",
        "The zip directory is contradictory (a name twice, two directories, overlapping entries, foreign bytes), "
        "so that PyTorch and a scanner may read different records.",
        "Do not use the file. Get it again from its source.",
    ),
    (
        "unsafe-path", "error", "the file refers to a path outside itself",
        "A record or shard name is absolute, or climbs out with `..`.",
        "Do not use the file. Get it again from its source.",
    ),
    # --- which weights ------------------------------------------------------------------------------------------
    (
        "no-weights", "error", "no model weights were found in the file",
        "The file can be read, but no part of it looks like a state dict.",
        "Look at it with `loadstone inspect FILE` and name the part with `weights=`.",
    ),
    (
        "several-models", "warning", "the file holds several sets of weights",
        "For example the raw model and its moving average. They give different results.",
        "Say which one you want: `weights=\"NAME\"`.",
    ),
    (
        "unknown-part", "error", "the file has no part of that name",
        "`Checkpoint.read` was asked for a key that is not in the tree.",
        "Use one of the names listed.",
    ),
    (
        "unknown-weights", "error", "the file has no set of weights of that name",
        "`weights=` names a part that is not in the file.",
        "Use one of the names listed.",
    ),
    # --- matching -----------------------------------------------------------------------------------------------
    (
        "missing-key", "error", "the model has a tensor that the checkpoint lacks",
        "No key of the checkpoint goes to this key of the model, so that it would keep its initial values.",
        "Keep the fresh values on purpose with `fresh=[...]`, or map a key onto it with `rename={...}`.",
    ),
    (
        "unexpected-key", "error", "the checkpoint has a tensor that the model lacks",
        "No key of the model takes this key of the checkpoint, so that it would be dropped.",
        "Leave it out on purpose with `drop=[...]`, or map it onto a key of the model with `rename={...}`.",
    ),
    (
        "shape-mismatch", "error", "the same key has two shapes",
        "The tensor in the checkpoint and the tensor in the model differ in shape.",
        "Build the model with the checkpoint's sizes, keep the fresh layer with `fresh=[...]`, "
        "or cut or pad it with `adapt={...}`.",
    ),
    (
        "ambiguous-match", "error", "two sources for one target",
        "Two keys of the checkpoint would be written to one key of the model.",
        "Leave one of them out with `drop=[...]`.",
    ),
    (
        "tied-conflict", "error", "tied parameters with different values",
        "The model shares one tensor between several keys, the checkpoint holds different values for them.",
        "Say which one counts by dropping the other: `drop=[...]`.",
    ),
    (
        "tied-weights", "note", "several keys share one tensor",
        "One copy is read; the others follow because they are the same memory in the model.",
        "Nothing needs doing.",
    ),
    (
        "prefix-removed", "note", "a wrapper's prefix was taken off or put on",
        "DataParallel, torch.compile and training frameworks put a prefix before every key.",
        "Nothing needs doing.",
    ),
    (
        "dtype-mismatch", "warning", "the cast loses precision",
        "The model's dtype holds fewer bits than the checkpoint's.",
        "Build the model with the checkpoint's dtype, or pass `dtype=`.",
    ),
    (
        "dtype-breaks-values", "error", "the cast would break values",
        "Overflow to infinity, float to integer or complex to real changes values beyond rounding.",
        "Build the model with the checkpoint's dtype, or say that you want it: `adapt={\"KEY\": \"cast\"}`.",
    ),
    (
        "low-coverage", "error", "most of the model would stay as it is",
        "Only a small part of the model's parameters has a source: probably another architecture.",
        "Check that this is the model the file was trained with.",
    ),
    (
        "nothing-to-load", "error", "nothing would be loaded",
        "No key of the checkpoint fits any key of the model.",
        "Check that this is the model the file was trained with.",
    ),
    (
        "old-name", "note", "a key was renamed as its module asks",
        "The module's own migration (a state dict hook, an older version of the layer) renamed or added keys.",
        "Nothing needs doing.",
    ),
    (
        "hook-failed", "error", "a hook of the model raised an error",
        "The model has a state dict hook or its own `_load_from_state_dict`, and it raised. Nothing was written.",
        "Look at the hook; its error is quoted.",
    ),
    (
        "unused-option", "error", "an option matches no key",
        "A pattern of `rename`, `only`, `drop`, `fresh` or `adapt` fits no key, so that it would do nothing.",
        "Correct the pattern; the nearest keys are listed.",
    ),
    (
        "invalid-option", "error", "an option has a wrong value",
        "The value is of the wrong type or none of the accepted ones.",
        "Use one of the values listed.",
    ),
    (
        "adapter-failed", "error", "an adapter raised an error or returned a wrong shape",
        "The callable given in `adapt=` did not give a tensor of the model's shape. Nothing was written.",
        "Correct the callable: it takes (tensor, target_shape) and returns a tensor of that shape.",
    ),
    (
        "uninitialised-parameter", "error", "a lazy parameter has no shape yet",
        "The model has lazy modules that have seen no input, so nothing can be checked against them.",
        "Run one batch through the model first, so that its lazy modules know their shapes.",
    ),
    (
        "left-on-meta", "error", "a tensor of the model would have no memory",
        "The model is on the meta device, and the checkpoint has no values for this tensor.",
        "Build it with `loadstone.build(factory, source)`, which runs the module's own initialisation for it.",
    ),
    (
        "stale-plan", "error", "model or file changed after the plan was made",
        "The plan was computed for other shapes, other tensors or another file.",
        "Make the plan again.",
    ),
    (
        "partial-load", "error", "the disk failed in the middle of the copy",
        "Reading failed after the first tensors had been written. The ones that have changed are listed.",
        "Load again from a good copy; with `backup=True` even this leaves the model as it was.",
    ),
    (
        "recipe-invalid", "error", "the recipe cannot be used",
        "The TOML is malformed, or an option in it is unknown or has a wrong type.",
        "Correct the line named.",
    ),
    (
        "target-not-found", "error", "the model to plan for cannot be built",
        "`--into` takes `module:factory`, and the module or the factory was not found, or raised an error.",
        "Give the module as Python would import it from this directory: `--into package.module:factory`.",
    ),
    (
        "open-question", "error", "names and shapes leave this open",
        "A match by structure has more than one way to pair these tensors, and nothing in keys or shapes decides. One "
        "answer settles every place like it.",
        "Say which one it is: `answers={\"MODEL KEY\": \"CHECKPOINT KEY\"}`, or `--answer MODEL_KEY=CHECKPOINT_KEY`.",
    ),
    (
        "no-structural-match", "error", "these are probably two different networks",
        "Layers, shapes and families of the two sides were compared, and too little fits to call it the same network: "
        "another depth, another width, another architecture.",
        "Build the model that the checkpoint was made with; `loadstone inspect FILE` shows its layers.",
    ),
    (
        "answer-unfit", "error", "an answer did not come to pass",
        "An answer names a key that is not there, or pairs tensors that cannot be one by their shapes, by another "
        "answer or by a rule of the recipe.",
        "Correct the answer or take it out; `open-question` lists what can be answered.",
    ),
    (
        "rows-not-once", "error", "rows of a tensor are used twice, or go nowhere",
        "A match by structure cuts a tensor, as an answer or a rule of the recipe says, and not every row of it ends "
        "up in one place. It is an error where some are used twice while others go nowhere, and a warning where the "
        "shapes demand it: the model has fewer rows, or repeats them.",
        "Correct the answer or the rule: `chunk(index, parts)` counts from 0, `rows(start, length)` takes a length.",
    ),
    (
        "rule-unfit", "error", "a rule of the recipe fits nothing",
        "A rule of `[options.rules]` fits no key of the model, or takes a tensor that the checkpoint does not have.",
        "Correct the rule, or delete it: what no rule says is matched by structure again.",
    ),
    (
        "recipe-changed", "warning", "the recipe was made for other keys",
        "The digests in `[options.hashes]` are not those of these keys, shapes and dtypes: one side has changed since. "
        "The rules are applied all the same, and each that fits nothing is an error.",
        "Read the plan as if it were new; `plan.recipe()` or `-o` write the recipe anew.",
    ),
    (
        "fits-by-structure", "note", "another naming of the same network, as it seems",
        "The names do not fit, the layers do: the file seems to come from another implementation of this network.",
        "Plan by structure: `match=\"structure\"`, or `--match structure`.",
    ),
    # --- freezing -----------------------------------------------------------------------------------------------
    (
        "freeze-matches-nothing", "error", "a name to freeze or unfreeze by is not in the model",
        "A pattern of `freeze` or `unfreeze` matches no parameter and no buffer. Nothing was changed.",
        "Correct the name; the nearest ones are listed. `layer*.**` means everything under every `layer…`.",
    ),
    (
        "nothing-to-train", "error", "no parameter would be left to train",
        "Nothing that was named needs a gradient, so that an optimizer would have nothing to do. Nothing was changed.",
        "Name the layers that shall train: `except_=[\"fc\"]`. Without `except_` all is frozen on purpose.",
    ),
    # --- surgery ------------------------------------------------------------------------------------------------
    (
        "head-not-found", "error", "the model has no layer that gives class scores",
        "A head is a linear layer or convolution whose outputs are the outputs of the model, one number a class, with "
        "nothing after it that has weights. What each output comes from instead is listed.",
        "Name the layer yourself: `ls.replace(model, \"NAME\", nn.Linear(...))`.",
    ),
    (
        "input-not-found", "error", "the model has no layer that takes an image",
        "No convolution mixes the channels of the input, as far as one forward pass shows.",
        "Give a batch of images with `example_input=`, or name the layer: `ls.replace(model, \"NAME\", layer)`.",
    ),
    (
        "several-candidates", "error", "the model has several such layers",
        "Several outputs of the model come from heads of their own, or several images go into it.",
        "Say which one is meant, with the line given for each.",
    ),
    (
        "unknown-module", "error", "the model has no module of that name",
        "The dotted name leads to no module. Names are those of `model.named_modules()`.",
        "Use one of the names listed.",
    ),
    (
        "not-editable", "error", "this module cannot be changed in place",
        "Scripted, compiled, wrapped and quantised modules hold their layers as code or packed memory; "
        "other layers share their weights, or are of a class that cannot be made anew in another size.",
        "Edit the plain model first, then script, compile, wrap or quantise it; or put a layer of yours in its place.",
    ),
    (
        "forward-failed", "error", "the model does not run on the example",
        "Its layers are found by one forward pass on a copy without memory, and that pass raised an error.",
        "Give a batch that the model takes, with `example_input=`.",
    ),
    (
        "edit-breaks-model", "error", "the model would not run with the new layer",
        "After the edit the forward pass raised an error or gave another shape than it should. The edit is undone.",
        "Build the model with the size it should have, or first change what depends on that size.",
    ),
    (
        "stale-edit", "error", "the model changed after the edit",
        "The modules that the edit put there are no longer where it put them, so that it cannot be undone.",
        "Undo later edits first, the last one before the one before it.",
    ),
    # --- saving -------------------------------------------------------------------------------------------------
    (
        "no-space", "error", "not enough space on the disk",
        "The file would not fit. What was there before is untouched.",
        "Free space or save elsewhere.",
    ),
    (
        "save-failed", "error", "the file could not be written",
        "The operating system reported an error. What was there before is untouched.",
        "Look at the error of the operating system that is quoted.",
    ),
    (
        "invalid-run-facts", "error", "run.json cannot be used",
        "It holds which checkpoints are pinned and which one the run went on from. It is damaged, or was written by a "
        "newer Loadstone. Nothing is deleted while it is so: any checkpoint could be pinned.",
        "Move it away and pin again what is to be kept: `loadstone pin FILE`.",
    ),
    (
        "not-removed", "warning", "a checkpoint that should go is still there",
        "It was pinned or replaced after it was judged, or the operating system refused.",
        "Look at the reason that is quoted, and run `loadstone prune` again.",
    ),
    (
        "not-a-repository", "error", "there is no git repository here",
        "`loadstone git setup` writes to the configuration of the repository that the current directory is in.",
        "Change into the repository, or use `loadstone git setup --global`.",
    ),
    (
        "not-linked", "note", "unchanged tensors were written again instead of being linked",
        "The file system makes no links there, or what would have been linked is damaged or gone. The checkpoint is "
        "whole; it takes more room than it could.",
        "Keep the checkpoints of a run on one disk. Where damage is reported: `loadstone verify` on the older one.",
    ),
    (
        "oversized-storage", "note", "only a part of a tensor's memory was written",
        "The tensors that were saved are views of memory that is mostly not theirs. `torch.save` would write all of "
        "it, here what they show was written. Views that share memory still share it.",
        "Nothing needs doing.",
    ),
    (
        "verification-failed", "error", "what was written does not read back as it was written",
        "After the save the bytes were read from the device and differ: the disk, its cable or the memory is faulty. "
        "What was there before is untouched.",
        "Save to another disk, and check this one.",
    ),
    (
        "destination-exists", "error", "the output file is already there",
        "A command will not replace a file unless told to.",
        "Choose another name, or add `--force`.",
    ),
    (
        "unsaveable-value", "error", "a value cannot be saved as plain data",
        "Only tensors, numbers, strings, None and lists, tuples and dicts of them are written.",
        "Turn the value into one of these, or leave it out.",
    ),
    (
        "needs-torch", "error", "this needs PyTorch",
        "Loading into a model, saving and reading tensors as torch tensors need torch; inspecting does not.",
        "Run `pip install loadstone[torch]`.",
    ),
    (
        "probe-unstable", "error", "the model's output cannot be remembered",
        "A probe keeps what the model computes for one input. This model gives another output each time it is run, or "
        "no tensor at all.",
        "Save without `probe=`, or make the model's forward deterministic in eval mode.",
    ),
    (
        "no-probe", "error", "the file remembers no output",
        "Only a file that was saved with `probe=` can be asked whether a model computes the same as before.",
        "Save it with one: `loadstone.save(model, path, probe=example_input)`.",
    ),
    (
        "probe-differs", "error", "the model computes something else than when it was saved",
        "The weights are in place, and the outputs for the probe's input differ by more than rounding: a layer, an "
        "activation or a setting such as eps is another one, or parts of the model did not come from the file.",
        "Build the model as it was when it was saved; the manifest lists its modules: `loadstone inspect FILE`.",
    ),
    # --- training -----------------------------------------------------------------------------------------------
    (
        "optimizer-invalid", "error", "this is no usable state of an optimizer",
        "It has no groups and state, contradicts itself, or holds objects that are no plain values. "
        "Or the optimizer did not take what it was given. The optimizer is as it was.",
        "Look at what the file holds: `loadstone inspect FILE`.",
    ),
    (
        "optimizer-differs", "error", "the optimizer is not the one that was saved",
        "An exact resume goes on only where groups, names, shapes and hyperparameters are the same. "
        "Learning rates may differ: they are taken from the file.",
        "Make the optimizer as it was, or carry over what fits by name with `strict=\"transfer\"`.",
    ),
    (
        "optimizer-unnamed", "error", "nothing says which state belongs to which parameter",
        "The state has positions only. The parameters of the file, in its order, and the shapes of the state leave "
        "more than one way to give them names, or none. A guess would give a layer the momentum of another.",
        "Give the names of the parameters in the order in which the optimizer had them.",
    ),
    (
        "optimizer-other-kind", "warning", "the file's optimizer was of another kind",
        "The keys of its state or of its groups are not those of this optimizer: momentum of SGD means nothing to "
        "Adam. Nothing of it is used, and the optimizer keeps the state that it has.",
        "Make the same kind of optimizer, or go on with a fresh one.",
    ),
    (
        "optimizer-nothing-kept", "warning", "no parameter of the optimizer finds its state in the file",
        "No name stands on both sides with the same shape, so that the optimizer starts afresh.",
        "Compare the names on both sides; renamed layers need `rename=`.",
    ),
    (
        "optimizer-regrouped", "warning", "groups of parameters were split or came together",
        "Several saved groups with different hyperparameters are one group now, or one saved group became several that "
        "differ. The file has not one value for such a group, and the optimizer keeps its own.",
        "Set the hyperparameters of that group to what you want.",
    ),
    (
        "optimizer-hyperparameters", "note", "hyperparameters come from the file",
        "Where all parameters of a group come from one saved group, its hyperparameters are the saved ones. "
        "How a step is computed (foreach, fused, capturable) stays as it is.",
        "To train on with other values, set them after the resume.",
    ),
    (
        "resume-differs", "error", "the training is not the one that was saved",
        "An exact resume goes on only where everything is as it was: classes, hyperparameters, config, data loader. "
        "Each row has both sides. Nothing was changed.",
        "Make it as it was; or go on with what fits: `run.resume(strict=\"transfer\")`.",
    ),
    (
        "damaged-checkpoint", "warning", "a checkpoint is not what was written",
        "Its bytes do not have the digest that they were written with. An older, whole checkpoint is used instead.",
        "See where the damage is: `loadstone verify FILE`. It is deleted only once a newer one is whole.",
    ),
    (
        "newer-checkpoints", "note", "the run goes on from an older checkpoint",
        "The newer ones stay in the directory, and `resume()` without a name takes the newest of all.",
        "Keep the new branch in a directory of its own.",
    ),
    (
        "foreign-count", "note", "what other code counted is taken as it stands",
        "Some scripts save the number of the last epoch counted from 0, others how many are finished.",
        "Compare `Progress.epoch` with what the script that wrote the file meant.",
    ),
    (
        "ambiguous-part", "error", "a training checkpoint has two of a kind",
        "Two places in the file could both be meant, and they differ.",
        "Name the part that you want.",
    ),
    (
        "resume-not-exact", "error", "a run that was killed and resumed did something else",
        "`loadstone resume-test` ran a script in one go and killed, and compared every batch, the learning rates, the "
        "weights and the optimizer's state: something the script depends on is not saved with the run.",
        "The step is named where it first shows, and what was still the same there. Give the run the part that is "
        "missing, or let it draw the batches.",
    ),
    (
        "not-repeatable", "error", "a script does something else each time it is run",
        "It draws from random numbers that it does not seed, or its operations are not deterministic, so that no "
        "resume could be compared with it.",
        "Seed every generator at the top of the script; on a GPU, `torch.use_deterministic_algorithms(True)`.",
    ),
    (
        "no-run", "error", "a script trains outside a run",
        "`loadstone resume-test` compares what a `loadstone.Run` with a model hands out batch by batch, and there was "
        "none.",
        "Make a Run, and take the batches from `run.batches(loader)`.",
    ),
    (
        "function-differs", "error", "the model computes something else than the reference",
        "Both were run in float64 on one input. Where the tensors fit and the outputs do not, a setting such as eps, "
        "padding or an activation is another one, or tensors of one shape have changed places.",
        "Look at the module that is named: its settings are compared. Before it, the two models agree.",
    ),
    (
        "implausible-values", "warning", "values that training does not leave behind",
        "The values were read, and some look as if tensors had changed places or were never trained: a variance below "
        "zero, the weight and the bias of a norm exchanged, a matrix of one value. It proves and decides nothing.",
        "Look at the tensors that are named; prove the match with `plan.check(example, reference=model)`.",
    ),
    (
        "undecided", "error", "no answer to the open questions gives the right output",
        "The open questions of a match by structure were answered in the ways that make sense, one after the other, "
        "and the model was run with each; with none of them it computed what it should.",
        "Look at the attempt that came nearest, and where it parted. More ways are tried with `forwards=`.",
    ),
    (
        "run-in-use", "error", "another process writes this run",
        "Two processes that save checkpoints of one run into one directory would mix two histories. The second one is "
        "refused at its first save.",
        "End the other process, or give this run another `name` or another directory. In distributed training, save on "
        "rank 0 only.",
    ),
    # --- exporting ----------------------------------------------------------------------------------------------
    (
        "export-failed", "error", "the model could not be made into a program",
        "torch could not follow the model's code: a branch or a loop depends on values, or a construct has no form "
        "there. Nothing was written.",
        "Change the line shown, or export to TorchScript: `loadstone.export(model, \"model.pt\", example)`.",
    ),
    (
        "export-differs", "error", "the exported program gives other outputs than the model",
        "The file was loaded back and run beside the model, and an output differs by more than rounding explains. "
        "The file was not kept.",
        "Look for a branch or a value that the program keeps from the example. "
        "A larger difference is let pass with `tolerance=`.",
    ),
    (
        "example-refused", "error", "the model does not run on the example",
        "The model itself, in eval mode, raised an error for the example input.",
        "Give an input that the model takes: its shape, its dtype, and the device of the model.",
    ),
    (
        "torchscript-deprecated", "warning", "TorchScript is deprecated",
        "torch 2.14 warns on every use of TorchScript and names torch.export as its successor. "
        "The file works with the torch that is installed.",
        "Export to .pt2 where whoever reads the file can: `loadstone.export(model, \"model.pt2\", example)`.",
    ),
    (
        "trace-is-fixed", "warning", "the trace keeps what the example made it do",
        "A Python number or a branch was taken from a tensor while the model was traced. The file keeps that value for "
        "every input. It was right for the inputs that were compared.",
        "Compile the branches with `script=True`, or export to .pt2, which refuses what it cannot follow.",
    ),
)
# fmt: on

CATALOG: dict[str, Entry] = {row[0]: Entry(*row) for row in _ROWS}
