"""What the settings of all stages have in common."""

from typing import Any, ClassVar

import msgspec

from edgedl.compress.encodings.encodings import QuantizedPrecision
from edgedl.compress.state import INTEGERS
from edgedl.runtime.errors import BadInputError


class StageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="stage"):
    """Settings of a stage, checked against their types and limits wherever they come from.

    A recipe file names a stage by its tag. msgspec checks what it reads from there; what Python
    code gives is checked here.
    """

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            BadInputError: one has another type or lies outside its limits; it is named.
        """
        for field in msgspec.structs.fields(self):
            value: Any = getattr(self, field.name)
            try:
                msgspec.convert(value, field.type, strict=True)
            except msgspec.ValidationError as error:
                stage = self.__struct_config__.tag
                raise BadInputError(f"{stage}, {field.name} = {value!r}: {error}") from error


class Refinement(StageSettings, frozen=True):
    """Settings of a stage that changes a quantized network.

    Attributes:
        works_on: precisions of the networks that it can change.
    """

    works_on: ClassVar[tuple[QuantizedPrecision, ...]] = INTEGERS
