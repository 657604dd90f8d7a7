"""Errors: a message, a remedy and an exit code, which survive the way between processes."""

import pickle

import pytest

from dreamcraft3d import errors


def test_message_and_remedy():
    error = errors.InputError("The file is empty.", "Choose another.")
    assert (error.message, error.remedy, error.code) == ("The file is empty.", "Choose another.", 2)
    assert str(error) == "The file is empty. Choose another."
    assert str(errors.ConfigError("No.")) == "No."


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_survives_pickling(name):
    error = getattr(errors, name)("What", "Remedy")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.message, copy.remedy, copy.code) == ("What", "Remedy", error.code)


def test_exit_codes():
    assert errors.Cancelled().code == 130
    assert errors.ObjectLost("x").code == 3
    assert errors.WorkspaceBusyError("x").code == errors.OutputError.code == 2
    assert "resumes" in str(errors.Cancelled())
