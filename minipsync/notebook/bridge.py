"""Calls of functions in another process: values go over as data, and gradients come back."""
import io
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Link(torch.autograd.Function):
    """Joins what another process returned to the arguments it was computed from."""

    @staticmethod
    def forward(ctx: Any, bridge: "Bridge", call: int, n: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """tensors: n results of call number `call`, then its arguments that want a gradient."""
        ctx.bridge, ctx.call = bridge, call
        ctx.n = n
        return tuple(x.clone() for x in tensors[:n])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Asks the other process for the gradients of the arguments."""
        found = ctx.bridge.request({"kind": "backward", "call": ctx.call, "gradients": list(gradients)})
        return None, None, None, *[None] * ctx.n, *found["gradients"]


class Bridge:
    """One end of a connection. Both ends may call functions of the other, also while they are called.

    Messages are written by torch.save and read with weights_only: nothing that comes over is ever run, so one
    end need not trust the other. Numbers, strings, tensors, functions and tuples, lists and dicts of them go
    over; of anything else only its description does. An iterator goes over as its items. Functions stay
    where they are: the other end gets one that calls back.

    lookup: what a name in a call of the other end stands for; without it only functions that were handed over
    can be called. limit: seconds for a request."""

    def __init__(self, connection: Connection, *, lookup: Callable[[str], Any] | None = None,
                 limit: float | None = None):
        self.connection, self.lookup, self.limit = connection, lookup, limit
        self.functions: list[Callable[..., Any]] = []
        self.calls: list[tuple[list[Tensor], list[Tensor]]] = []

    def call(self, function: str | int, *args: Any, **kwargs: Any) -> Any:
        """What `function` of the other end returns. Arguments that it changes are changed here, too.

        Raises RuntimeError with the text of an error over there, TimeoutError after `limit` seconds, and
        EOFError if the other process has ended."""
        tensors: list[Tensor] = []
        sent = self._pack([list(args), kwargs], tensors)
        reply = self.request({"kind": "call", "function": function, "arguments": sent})
        for x, after, gradient in zip(tensors, reply["after"], reply["gradients"], strict=True):
            if after.shape != x.shape or not torch.equal(after.to(x.dtype), x):
                with torch.no_grad():
                    x.copy_(after)
            if gradient is not None and x.is_leaf:
                x.grad = gradient
        results: list[Tensor] = []
        value = self._unpack(reply["value"], results)
        inputs, moving = ([x for x in xs if x.requires_grad] for xs in (tensors, results))
        if inputs and moving:
            known = [x.detach() for x in moving]
            linked = iter(Link.apply(self, reply["call"], len(moving), *known, *inputs))
            value = _replace(value, {id(x): next(linked) for x in moving})
        return value

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and serve the other end until its reply is there."""
        end = None if self.limit is None else time.monotonic() + self.limit
        self._send(message)
        while True:
            if end is not None and not self.connection.poll(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"no answer within {self.limit:g} s")
            reply = self._receive()
            if reply["kind"] == "result":
                return reply
            if reply["kind"] == "error":
                raise RuntimeError(reply["text"])
            self._serve(reply)

    def serve(self, run: Callable[[str], None]) -> None:
        """Serve the other end until it closes the connection; it may send source code to `run`."""
        while True:
            try:
                message = self._receive()
            except EOFError:
                return
            if message["kind"] == "run":
                run(message["source"])
                self._send({"kind": "result"})
            else:
                self._serve(message)

    def _serve(self, message: Mapping[str, Any]) -> None:
        """Answer a call. What was called may raise anything, also SystemExit: that is a reply like others."""
        try:
            reply = self._called(message) if message["kind"] == "call" else self._backward(message)
        except BaseException as error:
            reply = {"kind": "error", "text": f"{type(error).__name__}: {error}"}
        self._send(reply)

    def _called(self, message: Mapping[str, Any]) -> dict[str, Any]:
        which = message["function"]
        if isinstance(which, str):
            if self.lookup is None:
                raise LookupError(f"there is no function {which!r} to call from outside")
            function = self.lookup(which)
        else:
            function = self.functions[which]
        arguments: list[Tensor] = []
        args, kwargs = self._unpack(message["arguments"], arguments)
        results: list[Tensor] = []
        value = self._pack(function(*args, **kwargs), results)
        inputs, outputs = ([x for x in xs if x.requires_grad] for xs in (arguments, results))
        self.calls.append((inputs, outputs))
        return {"kind": "result", "value": value, "call": len(self.calls) - 1,
                "after": [x.detach() for x in arguments], "gradients": [x.grad for x in arguments]}

    def _backward(self, message: Mapping[str, Any]) -> dict[str, Any]:
        inputs, outputs = self.calls[message["call"]]
        gradients = torch.autograd.grad(outputs, inputs, message["gradients"], retain_graph=True,
                                        allow_unused=True)
        return {"kind": "result", "gradients": list(gradients)}

    def _pack(self, x: Any, tensors: list[Tensor]) -> Any:
        """x as data. Its tensors are appended to `tensors`, in the order in which `_unpack` meets them."""
        if isinstance(x, np.ndarray | np.generic):
            x = torch.as_tensor(x)
        if isinstance(x, Tensor):
            tensors.append(x)
            return {"tensor": x.detach().cpu().clone(), "gradient": x.requires_grad}
        if x is None or isinstance(x, bool | int | float | str):
            return {"value": x}
        if isinstance(x, tuple | list):
            return {"tuple" if isinstance(x, tuple) else "list": [self._pack(y, tensors) for y in x]}
        if isinstance(x, Iterator) and self.lookup is None:
            # An endless one of the other end must not hold us up: only ours are unrolled
            return {"iterator": [self._pack(y, tensors) for y in x]}
        if isinstance(x, dict):
            return {"dict": [[self._pack(k, tensors), self._pack(y, tensors)] for k, y in x.items()]}
        if callable(x):
            self.functions.append(x)
            return {"function": len(self.functions) - 1}
        return {"value": f"{type(x).__name__} {str(x)[:60]}"}

    def _unpack(self, x: Any, tensors: list[Tensor]) -> Any:
        (kind, value), = ((k, v) for k, v in x.items() if k != "gradient")
        if kind == "tensor":
            value = value.requires_grad_(x["gradient"])
            tensors.append(value)
            return value
        if kind == "value":
            return value
        if kind == "dict":
            return {self._unpack(k, tensors): self._unpack(y, tensors) for k, y in value}
        if kind == "function":
            return lambda *args, **kwargs: self.call(value, *args, **kwargs)
        items = [self._unpack(y, tensors) for y in value]
        return tuple(items) if kind == "tuple" else iter(items) if kind == "iterator" else items

    def _send(self, message: dict[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(message, file)
        self.connection.send_bytes(file.getvalue())

    def _receive(self) -> dict[str, Any]:
        return torch.load(io.BytesIO(self.connection.recv_bytes()), weights_only=True)


def _replace(value: Any, new: Mapping[int, Tensor]) -> Any:
    """value with the tensors of these ids replaced."""
    if isinstance(value, tuple | list):
        return type(value)(_replace(x, new) for x in value)
    if isinstance(value, dict):
        return {k: _replace(x, new) for k, x in value.items()}
    return new.get(id(value), value)
