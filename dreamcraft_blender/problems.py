"""What can go wrong, said so that a person can act on it: what happened, what to do, and which button does it.

Plain Python. Every error that reaches a person is a `Problem`; its `code` is one word that the error page of the user
guide lists.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Problem", "Remedy"]


@dataclass(frozen=True)
class Remedy:
    """A button that cures the problem: an operator of ours and its label."""

    operator: str
    label: str


BUTTONS = {
    "not_installed": Remedy("dreamcraft.install_backend", "Install Backend"),
    "wrong_version": Remedy("dreamcraft.install_backend", "Update Backend"),
    "broken_installation": Remedy("dreamcraft.install_backend", "Repair Backend"),
    "stopped": Remedy("dreamcraft.start_backend", "Start Backend"),
    "keeps_stopping": Remedy("dreamcraft.start_backend", "Try Again"),
    "silent": Remedy("dreamcraft.restart_backend", "Restart Backend"),
    "not_ours": Remedy("dreamcraft.restart_backend", "Restart Backend"),
    "did_not_start": Remedy("dreamcraft.open_log", "Show Log"),
    "no_network": Remedy("dreamcraft.install_backend", "Try Again"),
    "offline": Remedy("dreamcraft.open_preferences", "Open Preferences"),
    "read_only": Remedy("dreamcraft.open_preferences", "Open Preferences"),
    "in_the_way": Remedy("dreamcraft.open_preferences", "Open Preferences"),
    "no_python": Remedy("dreamcraft.open_preferences", "Choose a Python"),
    "no_image": Remedy("dreamcraft.open_picture", "Open a Picture"),
    "no_object": Remedy("dreamcraft.edit_mask", "Paint a Mask"),
}


class Problem(Exception):  # noqa: N818 - it is what a person has, not only what a program raises
    """Something a person can act on. `field` names the setting that is wrong, where one is."""

    def __init__(self, code: str, message: str, remedy: str = "", *, field: str = "", log: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.field = field
        self.log = log

    @property
    def button(self) -> Remedy | None:
        return BUTTONS.get(self.code)

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()
