"""Functions whose keywords are the options of a command."""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from ser_batch.config.fields import Options, fields_of

_Keywords = ParamSpec("_Keywords")
_Made = TypeVar("_Made", bound=Options)
_Input = TypeVar("_Input")
_Input_contra = TypeVar("_Input_contra", contravariant=True)
_Result = TypeVar("_Result")
_Result_co = TypeVar("_Result_co", covariant=True)


class FunctionWithDefault(Protocol[_Input_contra, _Keywords, _Result_co]):
    """A function whose input has a default, which no Callable can say."""

    def __call__(
        self, source: _Input_contra = ..., /, *args: _Keywords.args, **keywords: _Keywords.kwargs
    ) -> _Result_co:
        """Do the work of a stage."""


def as_function(
    options: Callable[_Keywords, _Made], run: Callable[[_Input, _Made], _Result]
) -> Callable[Concatenate[_Input, _Keywords], _Result]:
    """Return `run` as a function that takes the options as keywords; its signature and docstring list them."""

    @functools.wraps(run)
    def function(source: _Input, /, *args: _Keywords.args, **keywords: _Keywords.kwargs) -> _Result:
        return run(source, options(*args, **keywords))

    kind = cast("type[Options]", options)
    signature, hints = inspect.signature(run), typing.get_type_hints(kind)
    source = next(iter(signature.parameters.values())).replace(kind=inspect.Parameter.POSITIONAL_ONLY)
    parameters, described = [source], []
    for field in fields_of(kind):
        hint = hints[field.name] | str if field.is_path else hints[field.name]
        parameters.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hint)
        )
        described.append(f"{field.name}\n    {field.help}  [default: {field.default_text}]")
    summary, returns, rest = inspect.cleandoc(run.__doc__ or "").partition("\n\nReturns\n")
    made: Any = function
    made.__doc__ = "\n".join((summary, *described)) + returns + rest
    made.__name__ = made.__qualname__ = run.__name__.removeprefix("_")
    made.__signature__ = signature.replace(parameters=parameters)
    del made.__wrapped__  # whose signature and docstring do not list the options
    return function


def with_default(
    function: Callable[Concatenate[_Input, _Keywords], _Result], default: Any
) -> FunctionWithDefault[_Input, _Keywords, _Result]:
    """Give the input of such a function a default."""
    source, *keywords = inspect.signature(function).parameters.values()
    made: Any = function
    made.__defaults__ = (default,)
    made.__signature__ = made.__signature__.replace(parameters=[source.replace(default=default), *keywords])
    return cast("FunctionWithDefault[_Input, _Keywords, _Result]", function)
