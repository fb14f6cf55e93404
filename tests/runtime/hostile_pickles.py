"""Pickles that would run something, take memory or lie, each with a word of the sentence that refuses it."""

import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CALLED: list[str] = []  # stays empty unless something in a pickle was run


def call(*arguments: object) -> str:
    """What pickles name that want to be seen running."""
    CALLED.append(repr(arguments))
    return "called"


class Reduced:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def text(value: str) -> bytes:
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def named(module: str, name: str, *arguments: str) -> bytes:
    """A pickle that names a function and calls it with texts."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(map(text, arguments)) + b"tR."


NAMESPACE = b"cargparse\nNamespace\n)\x81"
OPTIONS = b"\x80\x02" + NAMESPACE  # an empty namespace, to be gone on with


def running(canary: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that do run where `pickle` reads them: they make the file `canary`, or call `call`."""
    touch = f"touch '{canary}'"
    python = f"open({str(canary)!r}, 'w').close()"
    system = Reduced(os.system, touch)
    found = {f"system in protocol {k}": (pickle.dumps(system, k), f"{os.system.__module__}.system") for k in range(6)}
    build = NAMESPACE + b"}" + text("lr") + pickle.dumps(system, 2)[2:-1] + b"sb."
    return found | {
        "eval": (pickle.dumps(Reduced(eval, python)), "builtins.eval"),
        "exec": (pickle.dumps(Reduced(exec, python)), "builtins.exec"),
        "exec of Python 2": (named("__builtin__", "eval", python), "__builtin__.eval"),
        "Popen": (pickle.dumps(Reduced(subprocess.Popen, ["sh", "-c", touch])), "subprocess.Popen"),
        "call": (pickle.dumps(Reduced(call, 1)), "hostile_pickles.call"),
        "partial": (pickle.dumps(Reduced(partial(os.system, touch))), "functools.partial"),
        "partial of call": (pickle.dumps(Reduced(partial(call))), "functools.partial"),
        "map": (pickle.dumps(Reduced(list, Reduced(map, call, (1, 2)))), "builtins.list"),
        "nested in a call": (pickle.dumps(Reduced(str, system)), "builtins.str"),
        "in a list": (pickle.dumps([1, [2, system]], 2), "posix.system"),
        "as a key": (b"\x80\x02}" + pickle.dumps(system, 2)[2:-1] + b"Ns.", "posix.system"),
        "in the state": (b"\x80\x02" + build, "posix.system"),
        "in a path": (b"\x80\x02cpathlib\nPurePosixPath\n" + pickle.dumps(Reduced(call), 2)[2:-1] + b"\x85R.", "call"),
        "getattr": (pickle.dumps(Reduced(getattr(os, "system").__call__, touch)), "builtins.getattr"),  # noqa: B009
        "dotted through argparse": (
            b"\x80\x04" + stack_global("argparse", "_os.system") + text(touch) + b"\x85R.", "argparse._os.system"
        ),
        "INST": (b"\x80\x02(" + text(touch) + b"iposix\nsystem\n.", "makes an instance of posix.system"),
        "OBJ": (b"\x80\x02(cposix\nsystem\n" + text(touch) + b"o.", "posix.system"),
        "a pickle in a pickle": (pickle.dumps(Reduced(pickle.loads, pickle.dumps(system))), "pickle.loads"),
        "behind memo and pop": (b"\x80\x02N0" + pickle.dumps(system, 2)[2:], "opcode POP"),
    }  # fmt: skip


def lying() -> dict[str, tuple[bytes, str]]:
    """Pickles that reach, overwrite, or ask for memory; some would do it at once, some in a later step."""
    deep = b"\x80\x02N" + b"\x85" * 30000
    globals_ = stack_global("pathlib", "PosixPath.__init__.__globals__")
    cases = {
        "dotted through pathlib": (b"\x80\x04" + stack_global("pathlib", "os.system") + b".", "pathlib.os.system"),
        "globals of a method": (b"\x80\x04" + globals_ + b".", "PosixPath.__init__.__globals__"),
        "attribute of the namespace": (b"\x80\x04" + stack_global("argparse", "Namespace.__init__") + b".", "__init__"),
        "no text as a name": (b"\x80\x04NN\x93.", "names no text"),
        "EXT1": (b"\x80\x02\x82\x01.", "EXT1"),
        "EXT2": (b"\x80\x02\x83\x01\x00.", "EXT2"),
        "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        "persistent id": (b"\x80\x02" + text("x") + b"Q.", "persistent id"),
        "persistent id as text": (b"Pwhatever\n.", "persistent id"),
        "OBJ of what is allowed": (b"\x80\x02(" + NAMESPACE[:-2] + b"o.", "opcode OBJ"),
        "NEWOBJ_EX": (b"\x80\x04" + NAMESPACE[:-1] + b"}\x92.", "opcode NEWOBJ_EX"),
        "BUILD on a class": (
            b"\x80\x02" + NAMESPACE[:-2] + b"N}" + text("x") + b"Ns\x86b.",
            "attributes of argparse",
        ),
        "BUILD of slots": (OPTIONS + b"N}" + text("x") + b"Ns\x86b.", "from a value of type tuple"),
        "__class__": (OPTIONS + b"}" + text("__class__") + NAMESPACE[:-2] + b"sb.", "the attribute __class__"),
        "__setstate__": (OPTIONS + b"}" + text("__setstate__") + b"Nsb}b.", "the attribute __setstate__"),
        "__reduce__": (OPTIONS + b"}" + text("__reduce__") + b"Nsb.", "the attribute __reduce__"),
        "namespace with arguments": (b"\x80\x02" + NAMESPACE[:-2] + text("x") + b"\x85R.", "with arguments"),
        "call of a text": (b"\x80\x02" + text("x") + b")R.", "calls a value of type str"),
        "call without a tuple": (b"\x80\x02" + NAMESPACE[:-2] + b"NR.", "calls argparse.Namespace"),
        "copyreg": (pickle.dumps(_Plain(), 1), "copy_reg._reconstructor"),
        "bytes": (pickle.dumps(b"x", 3), "BINBYTES"),
        "a large number of bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.", "damaged"),
        "a large bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"x.", "damaged"),
        "a small bytearray": (pickle.dumps(bytearray(b"x"), 5), "BYTEARRAY8"),
        "a bytearray by call": (pickle.dumps(bytearray(b"x"), 2), "builtin"),
        "a large text": (b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"x.", "damaged"),
        "a larger text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"x.", "damaged"),
        "a large integer": (b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.", "damaged"),
        "an integer as digits": (b"I" + b"9" * 6000 + b"\n.", "damaged"),
        "a set": (pickle.dumps({1}, 4), "EMPTY_SET"),
        "a deep tuple as a key": (b"\x80\x02}" + deep[2:] + b"Ns.", "as a key"),
        "a tuple as a key": (b"\x80\x02}N\x85Ns.", "as a key"),
        "items of a list": (b"\x80\x02]NNs.", "SETITEM on a value of type list"),
        "appended to a text": (b"\x80\x02" + text("x") + b"Na.", "APPEND on a value of type str"),
        "a key without a value": (b"\x80\x02}(Nu.", "damaged"),
        "nothing on the stack": (b"\x80\x02\x85.", "damaged"),
        "no mark": (b"\x80\x02t.", "damaged"),
        "an empty memo": (b"\x80\x02h\x07.", "damaged"),
        "protocol 9": (b"\x80\x09N.", "protocol 9"),
        "protocol 1": (pickle.dumps([1], 1), "protocol 0"),
        "no opcode": (b"\x80\x02\xff.", "damaged"),
        "no end": (b"\x80\x02N", "damaged"),
        "empty": (b"", "damaged"),
        "two pickles": (OPTIONS + b".N.", "goes on behind its end"),
        "a path of no text": (b"\x80\x02cpathlib\nPosixPath\nK\x01\x85R.", "a path of what is no text"),
        "a deep tuple": (deep + b".", "tuple"),
        "a number": (b"\x80\x02K\x01.", "int"),
        "a list": (b"\x80\x02].", "list"),
    }
    names = (
        "os.popen os.execv nt.system shutil.rmtree builtins.__import__ importlib.import_module runpy.run_path "
        "operator.attrgetter operator.methodcaller types.FunctionType types.CodeType marshal.loads ctypes.CDLL "
        "timeit.timeit pathlib.Path.unlink pathlib.io argparse.FileType argparse._sys codecs.encode _codecs.encode "
        "torch.load torch.hub.load numpy.load torch.nn.Module torch._utils._rebuild_wrapper_subclass builtins.set "
        "torch._tensor._rebuild_from_type_v2 torch.storage._load_from_bytes collections.Counter builtins.bytearray"
    )
    for name in names.split():
        cases[name] = (named(*name.rsplit(".", 1), "x"), name)
    return cases


class _Plain:
    pass


def in_archive(data: bytes, like: Path) -> bytes:
    """A copy of a file of torch.save with another pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(like) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            content = data if entry.filename.endswith("/data.pkl") else old.read(entry)
            new.writestr(entry.filename, content)
    return buffer.getvalue()
