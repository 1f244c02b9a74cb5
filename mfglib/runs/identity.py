"""What makes a run the same run: its game, learners and settings, the code that they use, and versions of libraries."""

import dataclasses
import hashlib
import inspect
import json
import operator
import re
import sysconfig
import textwrap
from typing import Any

import numpy as np
import torch
from torch import nn

from mfglib.policies import sampler
from mfglib.recipes import Recipe
from mfglib.seeds import Random, torch_defaults
from mfglib.sources import PACKAGES, fingerprint, libraries, remember, sources
from mfglib.trial import behaviour, same_behaviour

remember()  # what runs is what was read now, whatever is edited since


def settings_of(recipe: Recipe, learners: dict[str, Any]) -> dict[str, Any]:
    """What a run directory must match to go on: the game, the learners, the code that they use, and the versions of the
    libraries that this code imports."""
    policy = recipe.initial_policy
    modules = ["mfglib.fictitious_play", *modules_of(recipe.game, *learners.values(), recipe.averaging)]
    return dict(
        game=describe(recipe.game),
        behaviour=behaviour(recipe.game),
        wanted={part: name if isinstance(name, str) else None for part, name in recipe.wanted.items()},
        learners={part: describe_learner(learner) for part, learner in learners.items()},
        averaging=describe_learner(recipe.averaging),
        networks=recipe.sizes["networks"],
        seed=recipe.seed,
        device=recipe.device,
        code=fingerprint(modules, texts=[textwrap.dedent(inspect.getsource(Recipe.build))]),
        libraries=libraries(sources(modules)),
        **({} if policy is None else dict(initial_policy=describe_policy(recipe.game, policy, recipe.device))),
    )


def modules_of(*things: object) -> list[str]:
    """The project's modules that the classes of some objects, and their bases, are written in."""
    kinds = {kind for thing in things for kind in type(thing).__mro__}
    return sorted({kind.__module__ for kind in kinds if kind.__module__.split(".")[0] in PACKAGES})


def describe_learner(learner: object) -> dict[str, Any]:
    """The class of a learner, its configuration and other plain attributes, and a hash of its methods if it is not one
    of this project's."""
    kind, config = type(learner), getattr(learner, "config", None)
    plain = {n: v for n, v in vars(learner).items() if isinstance(v, (*PLAIN, tuple)) and n[0] != "_"}
    plain.pop("training", None)  # of any nn.Module
    return {
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "config": dataclasses.asdict(config) if dataclasses.is_dataclass(config) else None,
        "attributes": {name: _jsonable(value) for name, value in plain.items()},
        "methods": _methods(kind),
    }


def describe_policy(game: Any, policy: Any, device: str = "cpu") -> dict[str, Any]:
    """A policy that a run begins from, which is not stored, but must be the same for the run to go on: its class, a
    hash of its tensors, one of its methods if it is not one of this project's, and what it does (`behaviour`): random
    projections of actions at some states, at each time, as `mfglib.trial.behaviour` has them of games."""
    kind, random = type(policy), Random(0, 0, device)
    tensors = policy.state_dict() if isinstance(policy, nn.Module) else getattr(policy, "__dict__", {})
    with torch_defaults(), torch.no_grad():
        x, draw = game.initial(AGENTS, random("states")).float(), random("actions")
        x = torch.cat([x, x + torch.randn(x.shape, generator=random("further"), device=x.device)])
        if getattr(game, "domain", None) is not None:
            x = game.domain.uniform(AGENTS, random("everywhere")).float()
        act = sampler(policy.episode(len(x), draw) if hasattr(policy, "episode") else policy, draw)
        weights = torch.randn(game.horizon, len(x), game.action_dim, generator=random("weights"), device=x.device)
        terms = [weight * act(t, x) for t, weight in enumerate(weights)]
    return {
        "class": f"{kind.__module__}:{kind.__qualname__}",
        "tensors": _digest({n: _hashed(v) for n, v in tensors.items() if isinstance(v, torch.Tensor)}),
        "methods": _methods(kind),
        "behaviour": {f"{t}": [float(v.double().sum()), float(v.double().abs().sum())] for t, v in enumerate(terms)},
    }


def same_policy(one: Any, other: Any) -> bool:
    """Whether two descriptions are those of one policy, but for rounding on another processor."""
    if one is None or other is None:
        return one is other
    rest = ({name: value for name, value in d.items() if name != "behaviour"} for d in (one, other))
    return operator.eq(*rest) and same_behaviour(one["behaviour"], other["behaviour"])


def describe(game: object) -> dict[str, Any]:
    """The class of a game, its attributes as JSON values, private ones too where they are numbers, texts or arrays, and
    a hash of its methods' source, with the constants and functions that they use: what a run directory must match to
    resume, beside what the game does (`mfglib.trial.behaviour`)."""
    public = {name: _member(game, name) for name in dir(game) if not name.startswith("_")}
    values = {name: _jsonable(value) for name, value in public.items() if not callable(value)}
    private = {n: _jsonable(v) for n, v in getattr(game, "__dict__", {}).items() if n[0] == "_" and _is_constant(v)}
    methods = {name: _source(value) for name, value in public.items() if callable(value)}
    return {"class": type(game).__qualname__, "methods": _digest(methods), **values, **private}


AGENTS = 256  # whose actions say what a policy does
LARGE = 1000  # entries of an array that is not written out, but hashed


def _methods(kind: type) -> str:
    """A hash of the methods of a class, those of its bases included, as far as they are not this project's."""
    own = [k for k in kind.__mro__ if k.__module__.split(".")[0] not in (*PACKAGES, "torch", "builtins", "typing")]
    members = {name: getattr(f, "fget", f) for k in reversed(own) for name, f in vars(k).items()}
    return _digest({name: _source(f) for name, f in members.items() if callable(f)})


def _hashed(value: torch.Tensor) -> str:
    """Shape and entries of a tensor, each repeated one once."""
    once = value.detach()[tuple(slice(None, None if step else 1) for step in value.stride())]
    return f"{tuple(value.shape)} {hashlib.blake2b(once.cpu().contiguous().numpy().tobytes()).hexdigest()}"


def _digest(texts: dict[str, str]) -> str:
    return hashlib.blake2b(json.dumps(texts, sort_keys=True).encode(), digest_size=8).hexdigest()


def _member(game: object, name: str) -> Any:
    """An attribute, or why there is none: a property may only make sense for some games of its class."""
    try:
        return getattr(game, name)
    except Exception as reason:
        return f"{type(reason).__name__}: {reason}"


def _source(function: Any, seen: tuple[Any, ...] = ()) -> str:
    """Source, or else bytecode, as text, and the constants and functions that it uses from around it; of what is in
    this project or a library, whose code and version are known otherwise, the name."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(function, "__code__", None)
    if code is None or function in seen or _is_of_library(function):
        return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = f"{code.co_code.hex()} {code.co_names} {_jsonable(code.co_consts)}"
    around = inspect.getclosurevars(function)
    for name, value in sorted((around.globals | around.nonlocals).items()):
        if _is_constant(value):
            text += f"\n{name} = {_jsonable(value)}"
        elif inspect.isfunction(value):
            text += f"\n{name}: {_source(value, (*seen, function))}"
    return text


def _is_of_library(function: Any) -> bool:
    top = (getattr(function, "__module__", None) or "").partition(".")[0]
    return top in PACKAGES or function.__code__.co_filename.startswith(LIBRARIES)


LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
PLAIN = bool, int, float, complex, str, bytes, np.generic


def _is_constant(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return all(map(_is_constant, [*value, *(value.values() if isinstance(value, dict) else ())]))
    return value is None or isinstance(value, (*PLAIN, np.ndarray, torch.Tensor))


def _jsonable(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= LARGE else [*value.shape, hashlib.blake2b(value.tobytes()).hexdigest()]
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, dict):
        return {str(name): _jsonable(v) for name, v in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if type(value).__repr__ is object.__repr__ and hasattr(value, "__dict__"):  # the repr says nothing of its values
        own = {name: _jsonable(v) for name, v in vars(value).items() if not callable(v)}
        return {"class": type(value).__qualname__, **own}
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # an address would differ at the next start
