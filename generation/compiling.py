"""torch.compile as an option that cannot hurt: where it fails, the model goes on without."""

from __future__ import annotations

import logging

import torch
from torch import nn

from generation.devices import is_out_of_memory

log = logging.getLogger(__name__)


class Compiler:
    """Wraps modules of one model, ``what``, so that they run through torch.compile.

    Compiling happens at the first call and takes from seconds to minutes. At the first failure every module of
    the model goes on uncompiled, and the log says why. An error that the plain module raises too is the
    caller's and changes nothing; so is running out of memory.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.works = True

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module that does what ``module`` does. Its attributes are not the wrapped one's: use ``inner``."""
        try:
            compiled = torch.compile(module)
        except RuntimeError as error:  # torch refuses at once where it knows no compiler for the interpreter
            self.give_up(error)
            return module
        return _Compiled(module, compiled, self)

    def give_up(self, error: Exception) -> None:
        if self.works:
            self.works = False
            reason = str(error).strip().splitlines()
            log.warning(
                "torch.compile failed for %s (%s: %s): going on without it.",
                self._what,
                type(error).__name__,
                reason[0] if reason else "no reason given",
            )


class _Compiled(nn.Module):
    def __init__(self, inner: nn.Module, compiled: nn.Module, compiler: Compiler) -> None:
        super().__init__()
        self.inner = inner
        self._compiler = compiler
        # In a tuple it is no submodule of its own, and no parameter counts twice.
        self._compiled = (compiled,)

    def forward(self, *arguments: object, **named: object) -> object:
        if not self._compiler.works:
            return self.inner(*arguments, **named)
        try:
            return self._compiled[0](*arguments, **named)
        except Exception as error:  # compilers fail in any way; what the plain module raises too goes up from below
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            failure = error
        answer = self.inner(*arguments, **named)
        self._compiler.give_up(failure)
        return answer
