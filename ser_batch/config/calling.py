"""Packages that can be called: what makes `ser_batch.featurize` the stage's module and its function at once."""

import functools
import importlib
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any


def make_callable(package: str, function: Callable[..., Any]) -> None:
    """Let a package be called as a function.

    ``from ser_batch import featurize`` should give a function, and the package ``ser_batch.featurize`` has the same
    name: Python binds a package to its parent as soon as anything imports it, so that a function of that name would be
    there or not according to what was imported before. A package that can be called is right both ways, and
    ``ser_batch.featurize.FeaturizeWork`` goes on being found. Giving a module another class is what Python has for this
    (Data model, "Customizing module attribute access"); a class that defines ``__call__`` makes its instances callable.

    Parameters
    ----------
    package
        Its full name; it is being imported.
    function
        What a call runs, with all arguments. Its signature and docstring are those of the call.
    """

    @functools.wraps(function)
    def call(_package: types.ModuleType, /, *arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    # whoever asks a callable object for its signature leaves out the first parameter, which is the object
    itself = inspect.Parameter("_package", inspect.Parameter.POSITIONAL_ONLY)
    own = inspect.signature(function)
    # inspect looks for it, the types of functions do not have it
    call.__signature__ = own.replace(parameters=[itself, *own.parameters.values()])  # type: ignore[attr-defined]

    def reduce(_package: types.ModuleType) -> tuple[Any, ...]:
        return importlib.import_module, (package,)

    # a module travels between processes by its name, which what pickles knows of plain modules only
    members = {"__call__": call, "__reduce__": reduce}
    sys.modules[package].__class__ = type("CallablePackage", (types.ModuleType,), members)
