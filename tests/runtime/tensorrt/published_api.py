"""Modules with exactly the classes, members and signatures that a version of TensorRT has.

``record_api.py`` took them from NVIDIA's wheels. A call with a wrong name, a wrong number of
arguments or an argument of a wrong kind fails here as it does there. Nothing is built or computed.
"""

import inspect
import json
import re
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent / "api"
VERSIONS = sorted(path.stem for path in FOLDER.glob("*.json"))
SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((.*)\) -> (.+)$")
ENGINE = b"an engine"
BY_NAME = inspect.Parameter.KEYWORD_ONLY

Answer = Callable[..., Any]


class PublishedModule(ModuleType):
    """One version.

    Attributes:
        calls: class, member and arguments of every call and every property that was set.
        answers: what a member gives, by class and member: a value, or a function of the arguments.
    """

    def __init__(self, version: str) -> None:
        name, _, number = version.partition("-")
        super().__init__(name)
        self.__version__ = number
        self.calls: list[tuple[str, str, tuple[Any, ...]]] = []
        self.answers: dict[tuple[str, str], Any] = {}
        for kind, entry in json.loads((FOLDER / f"{version}.json").read_text()).items():
            if "members" in entry:
                setattr(self, kind, IntEnum(kind, entry["members"]))
            else:
                # In the order of their names a base comes first: ILogger, Logger.
                base = getattr(self, entry["base"], object)
                setattr(self, kind, self._class(kind, entry["has"], base))

    def called(self, member: str) -> list[tuple[Any, ...]]:
        """Return the arguments of every call of a member."""
        return [arguments for _, name, arguments in self.calls if name == member]

    def _class(self, kind: str, members: dict[str, list[str]], base: type) -> type:
        module = self

        def refuse(it: Any, name: str, value: Any) -> None:
            # A class of ours that derives from NVIDIA's may have more.
            if type(it) is made and name not in members:
                raise AttributeError(f"{module.__name__} {module.__version__}: no {kind}.{name}")
            module.calls.append((kind, name, (value,)))
            object.__setattr__(it, name, value)

        inside: dict[str, Any] = {"__setattr__": refuse}
        for name, signatures in members.items():
            if signatures:
                inside[name] = self._method(kind, name, [_read(text) for text in signatures])
            elif name != "__init__":
                inside[name] = self.answers.get((kind, name), 0)
        # Properties are read when they are asked for, so that a test may say what they are.
        inside["__getattribute__"] = self._getter(kind, members)
        made = type(kind, (base,), inside)
        return made

    def _getter(self, kind: str, members: dict[str, list[str]]) -> Answer:
        def get(it: Any, name: str) -> Any:
            known = name in members and not members[name]
            if known and (kind, name) in self.answers:
                return self.answers[kind, name]
            return object.__getattribute__(it, name)

        return get

    def _method(
        self, kind: str, name: str, overloads: list[tuple[inspect.Signature, str]]
    ) -> Answer:
        def method(*arguments: Any, **named: Any) -> Any:
            reasons = []
            for signature, result in overloads:
                try:
                    bound = signature.bind(*arguments, **named)
                    self._check(signature, bound)
                except TypeError as error:
                    reasons.append(str(error))
                    continue
                given = tuple(bound.arguments.values())[1:]
                self.calls.append((kind, name, given))
                return self._answer(kind, name, result, given)
            raise TypeError(f"{kind}.{name}: {'; '.join(reasons)}")

        return method

    def _check(self, signature: inspect.Signature, bound: inspect.BoundArguments) -> None:
        for name, value in bound.arguments.items():
            wanted = str(signature.parameters[name].annotation).rpartition(".")[2]
            own = getattr(self, wanted, None)
            if isinstance(own, type):
                if not isinstance(value, own):
                    raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}")
            elif not _fits(value, wanted):
                raise TypeError(f"{name} must be {wanted}, got {value!r}")

    def _answer(self, kind: str, name: str, result: str, given: tuple[Any, ...]) -> Any:
        if (kind, name) in self.answers:
            answer = self.answers[kind, name]
            return answer(*given) if callable(answer) else answer
        wanted = result.rpartition(".")[2]
        if wanted == "IHostMemory":
            return ENGINE
        own = getattr(self, wanted, None)
        if isinstance(own, type):
            return object.__new__(own)
        return {"bool": True, "int": 1, "str": "", "None": None}.get(wanted)


def _fits(value: Any, wanted: str) -> bool:
    kinds = {
        "int": int,
        "SupportsInt": int,
        "str": str,
        "bool": bool,
        "buffer": bytes,
        "Buffer": bytes,
        "Dims": tuple,
        "tuple": tuple,
        "list": list,
    }
    return wanted not in kinds or isinstance(value, kinds[wanted])


def _read(text: str) -> tuple[inspect.Signature, str]:
    """Return the signature that pybind11 writes down, and the type of the result."""
    inside, result = SIGNATURE.match(text).groups()
    parameters, depth, start = [], 0, 0
    for index, letter in enumerate(inside + ","):
        depth += {"[": 1, "<": 1, "(": 1, "]": -1, ">": -1, ")": -1}.get(letter, 0)
        if letter != "," or depth:
            continue
        part = inside[start:index].strip()
        start = index + 1
        if part:
            head, _, default = part.partition(" = ")
            name, _, kind = head.partition(": ")
            # pybind11 takes a parameter without a default behind one that has one.
            defaulted = any(p.default is not p.empty for p in parameters)
            by_name = defaulted and (
                not default or parameters[-1].kind is inspect.Parameter.KEYWORD_ONLY
            )
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY
                    if by_name
                    else inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=default or inspect.Parameter.empty,
                    annotation=kind,
                )
            )
    return inspect.Signature(parameters), result
