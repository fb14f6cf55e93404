"""A reader of pickles that cannot call, import or look up anything.

A pickle is a program that may name and call any function of Python. This reader runs only the part of it that builds
plain values. What the program names stays a name, and what it would call is handed to one of a few functions of ours,
chosen from a table by the exact name. Everything else ends the reading with a sentence that says what was found.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from i2sb_rt.errors import ModelFileError

Make = Callable[..., Any]  # what stands in for a class or function: takes the arguments, raises Refusal
_KEYS: Final = (str, int)  # of dictionaries; nothing that is hashed can nest


class Refusal(Exception):
    """What is wrong with a pickle, as the end of a sentence that begins with the file's name."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names, never looked up."""

    text: str
    make: Make | None = None  # None: it may be named, not called


class Record(dict[Any, Any]):
    """What stands for an object: the items that were set in it, and its attributes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.attributes: dict[str, Any] = {}


def read_pickle(
    data: bytes, source: str, names: Mapping[str, Make | None], only: str, persistent: Make | None = None
) -> Any:
    """Build the value of a pickle of protocol 2 to 5, of plain values and what `names` allows.

    names: by "module.name" what is called in place of the real thing, None where only the name itself may stand.
    only: for messages, what may stand in the file. persistent: takes persistent ids, which PyTorch writes in protocol
    2; they are refused where it is None.
    Plain values are None, booleans, integers, floats, text, tuples, lists, and dictionaries whose keys are text or
    integers. Raises ModelFileError for anything else; nothing in the file runs.
    """
    machine = _Machine(names, persistent)
    try:
        for opcode, argument, place in pickletools.genops(data):
            if opcode.name == "STOP":
                if place != len(data) - 1:
                    raise Refusal("goes on behind its end")
                if not 2 <= machine.protocol <= (5 if persistent is None else 2):
                    raise Refusal(f"is of the pickle protocol {machine.protocol}, which is not written there")
                return machine.pop()
            machine.step(opcode.name, argument)
    except Refusal as refusal:
        raise ModelFileError(f"{source} {refusal}; {only} may stand in it. Nothing in it was run.") from None
    except (ValueError, LookupError, TypeError, ArithmeticError, AssertionError) as error:
        raise ModelFileError(f"{source} is damaged, or no pickle ({_short(error)}).") from None
    raise ModelFileError(f"{source} is damaged: it has no end.")


class _Machine:
    """The stack machine of the pickle format, without the parts that reach outside."""

    def __init__(self, names: Mapping[str, Make | None], persistent: Make | None) -> None:
        self.names, self.persistent = names, persistent
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below the marks
        self.memo: dict[int, Any] = {}
        self.protocol = 0

    def step(self, opcode: str, argument: Any) -> None:
        """Do what one opcode says; raises Refusal for those that are not allowed."""
        match opcode:
            case "PROTO":
                self.protocol = argument
            case "FRAME":
                pass
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(opcode == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                self.stack.append(argument)
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                self.stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[opcode]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                values = [self.pop() for _ in range(int(opcode[-1]))]
                self.stack.append(tuple(reversed(values)))
            case "MARK":
                self.outer.append(self.stack)
                self.stack = []
            case "TUPLE":
                values = self.marked()
                self.stack.append(tuple(values))
            case "APPEND" | "APPENDS":
                values = [self.pop()] if opcode == "APPEND" else self.marked()
                self.top(list, opcode).extend(values)
            case "SETITEM" | "SETITEMS":
                values = [self.pop(), self.pop()][::-1] if opcode == "SETITEM" else self.marked()
                self.set_items(self.top(dict, opcode), values)
            case "MEMOIZE" | "BINPUT" | "LONG_BINPUT":
                self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case _:
                self.reach(opcode, argument)

    def reach(self, opcode: str, argument: Any) -> None:
        """Do what the opcodes say that would import or call something."""
        match opcode:
            case "GLOBAL":
                self.name(argument.replace(" ", ".", 1))
            case "STACK_GLOBAL":
                last, module = self.pop(), self.pop()
                self.name(f"{module}.{last}" if isinstance(module, str) and isinstance(last, str) else "no text")
            case "REDUCE" | "NEWOBJ":
                arguments, maker = self.pop(), self.pop()
                if not isinstance(maker, Name) or maker.make is None or not isinstance(arguments, tuple):
                    raise Refusal(f"calls {_kind(maker)}")
                self.stack.append(maker.make(*arguments))
            case "BUILD":
                state, record = self.pop(), self.stack[-1]
                if not isinstance(record, Record) or type(state) is not dict:
                    raise Refusal(f"sets attributes of {_kind(record)} from {_kind(state)}")
                self.set_attributes(record, state)
            case "BINPERSID" if self.persistent is not None:
                self.stack.append(self.persistent(self.pop()))
            case "PERSID" | "BINPERSID":
                raise Refusal("holds a persistent id")
            case "INST":
                raise Refusal(f"makes an instance of {_clip(argument.replace(' ', '.', 1))}")
            case _:
                raise Refusal(f"holds the opcode {opcode}")

    def name(self, text: str) -> None:
        """Push a name from the table."""
        if text not in self.names:
            raise Refusal(f"names {_clip(text)}")
        self.stack.append(Name(text, self.names[text]))

    def pop(self) -> Any:
        """Take the last value; raises IndexError below the last mark."""
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """Take all values down to the last mark; raises IndexError where there is none."""
        values, self.stack = self.stack, self.outer.pop()
        return values

    def top(self, kind: type[Any], opcode: str) -> Any:
        """Return the last value, which must be a list or a dictionary of ours."""
        if not isinstance(self.stack[-1], kind):
            raise Refusal(f"has {opcode} on {_kind(self.stack[-1])}")
        return self.stack[-1]

    def set_items(self, target: dict[Any, Any], values: list[Any]) -> None:
        """Set key after key, value after value."""
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in _KEYS:
                raise Refusal(f"has {_kind(key)} as a key")
            target[key] = value

    def set_attributes(self, record: Record, state: dict[Any, Any]) -> None:
        """Set attributes, none of which may be one of Python's own."""
        for key, value in state.items():
            if not isinstance(key, str) or key.startswith("__"):
                raise Refusal(f"sets the attribute {_clip(str(key))} of {record.kind}")
            record.attributes[key] = value


def _kind(value: object) -> str:
    """Say what a value is, shortly; it may be of any depth."""
    if isinstance(value, Name):
        return value.text
    return value.kind if isinstance(value, Record) else f"a value of type {type(value).__name__}"


def _clip(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _short(error: Exception) -> str:
    return _clip(str(error) or type(error).__name__)
