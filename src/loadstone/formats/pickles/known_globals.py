"""What is known about the names that pickles hold: which are data, and which run code when they are called.

The rule (globals.py) needs few names.  Of Python's standard library everything is dangerous to call but the
constructors of data listed here; of PyTorch and NumPy every function but the builders listed here; of all other
packages, whose classes nobody can list, what is known to run code, open files or open connections.
"""

from __future__ import annotations

import sys
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _rows(table: dict[str, str]) -> frozenset[tuple[str, str]]:
    """{"module": "name name"} as a set of (module, name)."""
    return frozenset((module, name) for module, names in table.items() for name in names.split())


# sys.stdlib_module_names leaves out the tests, and names that other versions of Python have or had.
STDLIB: Final = sys.stdlib_module_names | _words(
    """
    test pip ensurepip distutils lib2to3 imp asynchat asyncore smtpd aifc audioop cgi cgitb chunk crypt imghdr mailcap
    msilib nis nntplib ossaudiodev pipes sndhdr spwd sunau telnetlib uu xdrlib _bootsubprocess _aix_support binhex
    formatter parser symbol macpath dummy_threading commands popen2 os2 os2emxpath riscos ce dl ihooks imputil new rexec
    Bastion bsddb compiler hotshot mhlib mimetools MimeWriter mimify multifile posixfile sets sha md5 user
    _pyrepl compression annotationlib
    """
)

# Constructors and helpers that give data, whatever their arguments are.
SAFE_STDLIB: Final = _rows(
    {
        "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple "
        "Ellipsis NotImplemented enumerate zip reversed iter len abs min max sum round ord chr any all sorted "
        "divmod pow",
        "collections": "OrderedDict defaultdict deque Counter ChainMap UserDict UserList UserString",
        "datetime": "date datetime time timedelta timezone",
        "zoneinfo": "ZoneInfo",
        "decimal": "Decimal",
        "fractions": "Fraction",
        "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
        "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",  # Python 3.13
        "uuid": "UUID SafeUUID",
        "ipaddress": "IPv4Address IPv4Network IPv6Address IPv6Network IPv4Interface IPv6Interface",
        "argparse": "Namespace",
        "types": "SimpleNamespace MappingProxyType GenericAlias NoneType",
        "functools": "partial",  # and what it wraps, see FUNCTION_ARGUMENT
        "random": "Random",
        "array": "array _array_reconstructor",
        "re": "_compile",
        "time": "struct_time",
        "string": "Template",
        "itertools": "count cycle repeat chain islice product",
        "logging": "getLogger",  # Logger.__reduce__
        "inspect": "Signature Parameter _ParameterKind",
        "dataclasses": "_MISSING_TYPE _HAS_DEFAULT_FACTORY_CLASS",
        "_codecs": "encode",  # how protocol 2 writes bytes
        "copyreg": "_reconstructor __newobj__ __newobj_ex__",
    }
)

# A call to one of these calls, now or later, what stands at this place of its arguments.
FUNCTION_ARGUMENT: Final[dict[tuple[str, str], int]] = {
    ("functools", "partial"): 0,
    ("collections", "defaultdict"): 0,
    ("copyreg", "_reconstructor"): 0,
    ("copyreg", "__newobj__"): 0,
    ("copyreg", "__newobj_ex__"): 0,
    ("torch._tensor", "_rebuild_from_type"): 0,
    ("torch._tensor", "_rebuild_from_type_v2"): 0,
    ("torch._utils", "_rebuild_wrapper_subclass"): 0,
}

# Modules of the standard library whose names are harmless as data: annotations, and functions of numbers and values.
DATA_MODULES: Final = _words(
    "typing collections collections.abc numbers abc enum math cmath operator _operator types dataclasses datetime time "
    "statistics itertools functools string re random copyreg warnings logging"
)

# Modules of the standard library whose functions have no business in a file of weights, called or not.
HOSTILE_MODULES: Final = _words(
    "os nt posix ce os2 os2emxpath riscos subprocess commands popen2 sys importlib runpy pkgutil pty socket shutil "
    "ctypes _ctypes code codeop pickle _pickle marshal imp pdb bdb pip webbrowser multiprocessing "
    "_posixsubprocess _winapi _socket signal io _io"
)
HOSTILE_BUILTINS: Final = _words(
    "eval exec compile open __import__ getattr setattr delattr globals locals vars input breakpoint"
)

# How a torch.memory_format is pickled: as a dotted name in whatever module is found to have `torch` as an attribute.
MEMORY_FORMATS: Final = _words(
    "torch.channels_last torch.channels_last_3d torch.contiguous_format torch.preserve_format"
)

# What builds tensors, arrays and their parts, called by files of torch.save and numpy.  Sources: torch/_utils.py,
# torch/_tensor.py `__reduce_ex__`, torch/storage.py, torch/jit/_pickle.py, numpy/_core/multiarray.py, numpy/random.
SAFE_BUILDERS: Final = _rows(
    {
        "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
        "_rebuild_parameter_v2 _rebuild_parameter_with_state _rebuild_sparse_tensor _rebuild_sparse_csr_tensor "
        "_rebuild_qtensor _rebuild_nested_tensor _rebuild_meta_tensor_no_storage _rebuild_wrapper_subclass "
        "_rebuild_xla_tensor _rebuild_device_tensor_from_numpy _rebuild_device_tensor_from_cpu_tensor",
        "torch._tensor": "_rebuild_from_type _rebuild_from_type_v2",
        "torch.nested._internal.nested_tensor": "_rebuild_njt",
        "torch.utils._pytree": "treespec_leaf",
        "torch.storage": "_load_from_bytes",  # a checkpoint inside the pickle: opened and judged by itself
        "torch.serialization": "_get_layout",
        "torch.nn.backends.thnn": "_get_thnn_function_backend",  # modules of torch 0.x
        "torch": "device dtype layout memory_format qscheme finfo iinfo",
        "torch.jit._pickle": "build_intlist build_tensorlist build_doublelist build_boollist build_tensor_from_id "
        "restore_type_tag",
        "numpy": "ndarray dtype matrix recarray record poly1d chararray bool bool_ int8 int16 int32 int64 uint8 uint16 "
        "uint32 uint64 intc intp uintc uintp longlong ulonglong float16 float32 float64 longdouble complex64 "
        "complex128 clongdouble str_ bytes_ void object_ datetime64 timedelta64",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy._core.numeric": "_frombuffer",
        "numpy._core": "_ufunc_reconstruct _DType_reconstruct",
        "numpy._core.records": "recarray record",
        "numpy.ma.core": "_mareconstruct",
        "numpy.ma.mrecords": "_mrreconstruct",
        "numpy.random": "__RandomState_ctor",
        "numpy.random._pickle": "__generator_ctor __bit_generator_ctor __randomstate_ctor",
        "numpy.random.bit_generator": "__pyx_unpickle_SeedSequence",
        "numpy.random._bit_generator": "__pyx_unpickle_SeedSequence",
    }
)

# Of these packages every function outside SAFE_BUILDERS is dangerous to call.
JUDGED_PACKAGES: Final = frozenset({"torch", "torchvision", "torchaudio", "torchtext", "numpy"})

# Their classes are no news in a checkpoint.
OWN_PACKAGES: Final = frozenset({"torch", "numpy"})

# Beginnings of dotted names, classes included, that run code, read or write files, or open connections when called.
DANGEROUS: Final = _words(
    """
    torch.hub torch.package torch._inductor torch._dynamo torch._export torch.export torch.onnx torch.testing torch.ops
    torch._ops torch.classes torch._classes torch.library torch.multiprocessing torch.fx.experimental
    torch.utils.bottleneck torch.utils.cpp_extension torch.utils.collect_env torch.utils._config_module
    torch.utils.data.datapipes torch.utils.tensorboard torch.utils.model_zoo torch.utils.benchmark
    torch.distributed.rpc torch.distributed.elastic torch.distributed.launcher torch.distributed.run
    torch.distributed.TCPStore torch.distributed.FileStore torch.distributed.Store
    torch._C._distributed_c10d.TCPStore torch._C._distributed_c10d.FileStore
    torch.jit.CompilationUnit torch.CompilationUnit torch._C.CompilationUnit torch._C.ScriptFunction
    torch.PyTorchFileReader torch.PyTorchFileWriter torch._C.PyTorchFileReader torch._C.PyTorchFileWriter
    torch.jit.unsupported_tensor_ops torch.load torch.save torch.serialization.load torch.serialization.save
    torch.jit.load torch.jit.save torch.compile
    numpy.testing numpy.f2py numpy.distutils numpy.DataSource numpy.lib._datasource numpy.load numpy.save numpy.memmap
    pandas.eval pandas.read_pickle pandas.io pandas.core.computation pandas.compat.pickle_compat
    cloudpickle dill joblib jsonpickle pathos multiprocess ray.cloudpickle pyspark.cloudpickle
    setuptools pkg_resources _distutils_hack wheel conda
    IPython ipykernel jupyter_client jupyter_core notebook
    paramiko pexpect ptyprocess plumbum fabric invoke sh psutil
    requests urllib3 httpx aiohttp websocket websockets boto3 botocore
    django flask jinja2 mako sqlalchemy celery twisted tornado
    yaml ruamel numexpr sympy.core.sympify asteval RestrictedPython
    tensorflow.python keras.models keras.saving keras.src.saving keras.utils
    transformers.pipeline transformers.dynamic_module_utils huggingface_hub
    matplotlib.pyplot fsspec smart_open
    """
)
