"""What the settings of all stages have in common."""

from typing import Any

import msgspec

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
