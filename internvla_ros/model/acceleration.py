"""How a network's pure tensor functions are run: as they are, compiled, or as CUDA graphs.

A control loop calls the same functions with the same shapes for minutes on end. A CUDA graph then
replays all kernels of a call with one launch; `torch.compile` fuses them. Both cost time at the
first call with new shapes, which `warm_up` of a policy spends before the robot moves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

WARM_UP_CALLS = 3
"""Calls on a side stream before a capture, as torch.cuda.graphs asks for."""


class Runner(Protocol):
    """Calls a function of tensors and hashable settings that returns one tensor."""

    def __call__(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """The function's result."""
        ...


def eager(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call the function as it is."""
    return function(*arguments)


class Compiled:
    """Runs every function through `torch.compile`, with static shapes."""

    def __init__(self) -> None:
        self._compiled: dict[Hashable, Callable[..., Tensor]] = {}

    def __call__(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """The result; compiles at the first call of a function."""
        if function not in self._compiled:
            self._compiled[function] = torch.compile(function, dynamic=False)
        return self._compiled[function](*arguments)


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


class CudaGraphs:
    """Captures a CUDA graph for every function and shape, and replays it from then on.

    Results are copied out of the graph's buffers, so that they outlive the next call. Only for
    inference, and only for functions that never wait for the GPU.
    """

    def __init__(self, inner: Runner = eager) -> None:
        if not torch.cuda.is_available():
            raise ValueError("CUDA graphs need an NVIDIA GPU; this PyTorch sees none")
        self.inner = inner
        self._captured: dict[Hashable, _Captured] = {}

    def __call__(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """The result; captures at the first call with new shapes or settings."""
        if torch.is_grad_enabled():
            return self.inner(function, *arguments)
        tensors = [value for value in arguments if isinstance(value, Tensor)]
        key = (function, *map(signature, arguments))
        if key not in self._captured:
            self._captured[key] = self._capture(function, arguments)
        captured = self._captured[key]
        for buffer, value in zip(captured.inputs, tensors, strict=True):
            buffer.copy_(value)
        captured.graph.replay()
        return captured.output.clone()

    def _capture(self, function: Callable[..., Tensor], arguments: tuple[Any, ...]) -> _Captured:
        static = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                self.inner(function, *static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.inner(function, *static)
        return _Captured(graph, [a for a in static if isinstance(a, Tensor)], output)


def signature(argument: object) -> Hashable:
    """What a graph depends on: a tensor's shape, type and device, or any other value itself."""
    if isinstance(argument, Tensor):
        return (tuple(argument.shape), argument.dtype, argument.device)
    if not isinstance(argument, Hashable):
        raise TypeError(f"a setting of a captured function must be hashable, not {argument!r}")
    return argument


def runner(*, compiled: bool = False, cuda_graphs: bool = False) -> Runner:
    """A runner for the flags that users set."""
    inner: Runner = Compiled() if compiled else eager
    return CudaGraphs(inner) if cuda_graphs else inner
