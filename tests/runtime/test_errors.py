"""Every expected error carries the exit code that the command line promises."""

import pytest

from edgedl.runtime import errors


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [
        ("BudgetMissedError", 1),
        ("BadInputError", 2),
        ("InvalidMeasurementError", 3),
        ("BackendUnavailableError", 4),
        ("IntegrityError", 5),
    ],
)
def test_exit_code(name, exit_code):
    error = getattr(errors, name)("what to do")
    assert error.exit_code == exit_code
    assert isinstance(error, errors.EdgedlError)
    assert str(error) == "what to do"


def test_no_expected_error_exits_as_success():
    classes = [v for v in vars(errors).values() if isinstance(v, type)]
    assert len(classes) == 7
    assert all(c.exit_code > 0 for c in classes)


def test_a_file_that_fails_has_a_name_and_a_reason():
    error = errors.FileFailedError("ort-int8", "it crashes")
    assert (error.name, error.reason, error.exit_code) == ("ort-int8", "it crashes", 2)
    assert str(error) == "ort-int8: it crashes"


def test_a_library_that_is_there_is_not_to_be_installed():
    missing = ModuleNotFoundError("No module named 'x'", name="x")
    assert str(errors.BackendUnavailableError.of(missing, "pip install x")) == "pip install x"
    broken = ImportError("libx.so: cannot allocate memory\nmore", name="x")
    said = str(errors.BackendUnavailableError.of(broken, "pip install x"))
    assert said == "x is installed and cannot be loaded: libx.so: cannot allocate memory"
