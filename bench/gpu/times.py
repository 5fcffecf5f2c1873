"""Times of the dot interaction on a GPU with device events, against a copy and other implementations."""

import statistics

import device as gpu

COUNT, WIDTH = 27, 128


def measure(device, kernels: gpu.Kernels, batch: int) -> list[dict]:
    """Prints a table and returns its rows: per type and implementation ms of forward and gradient, and GB/s of both.

    The bytes of a pass are its inputs and outputs once each. `of copy` is their rate as a share of a copy's here.
    """
    shape, rows = (batch, COUNT, WIDTH), []
    print(
        f"{'type':>8} {'implementation':>16} | {'forward ms':>10} {'GB/s':>6} {'of copy':>7} | "
        f"{'gradient ms':>11} {'GB/s':>6} {'of copy':>7}"
    )
    for dtype, item in gpu.ITEM_BYTES.items():
        inputs, outputs = batch * COUNT * WIDTH * item, batch * gpu.output_width(COUNT, WIDTH) * item
        features, upstream = device.random(inputs, dtype), device.random(outputs, dtype)
        output, gradient = device.poisoned(outputs), device.poisoned(inputs)
        copy_ms = median_ms(device, lambda to=gradient, source=features: device.copy(to, source))
        copy_rate = 2 * inputs / copy_ms / 1e6
        x, up, y, g = (device.address(memory) for memory in (features, upstream, output, gradient))
        runs = {}
        for kernel in ("tensor", "general"):
            if kernels.forward(x, y, shape, dtype, kernel):
                runs[f"native {kernel}"] = (
                    lambda k=kernel, x=x, y=y, t=dtype: kernels.forward(x, y, shape, t, k),
                    lambda k=kernel, x=x, u=up, g=g, t=dtype: kernels.gradient(x, u, g, shape, t, k),
                )
        runs |= torch_runs(device, features, upstream, shape, dtype)
        rows.append({"dtype": dtype, "implementation": "copy", "ms": copy_ms, "gb_per_s": copy_rate})
        print(f"{dtype:>8} {'copy':>16} | {copy_ms:>10.3f} {copy_rate:>6.0f} {1:>7.2f} |")
        for name, (forward, backward) in runs.items():
            forward_ms, backward_ms = median_ms(device, forward), median_ms(device, backward)
            rates = (inputs + outputs) / forward_ms / 1e6, (2 * inputs + outputs) / backward_ms / 1e6
            rows.append(
                {
                    "dtype": dtype,
                    "implementation": name,
                    "forward_ms": forward_ms,
                    "gradient_ms": backward_ms,
                    "forward_of_copy": rates[0] / copy_rate,
                    "gradient_of_copy": rates[1] / copy_rate,
                }
            )
            print(
                f"{dtype:>8} {name:>16} | {forward_ms:>10.3f} {rates[0]:>6.0f} {rates[0] / copy_rate:>7.2f} | "
                f"{backward_ms:>11.3f} {rates[1]:>6.0f} {rates[1] / copy_rate:>7.2f}",
                flush=True,
            )
        del features, upstream, output, gradient, runs
        rows += jax_rows(shape, dtype)
    return rows


def median_ms(device, call) -> float:
    """Median of 20 device times after 5 that do not count."""
    for _ in range(5):
        call()
    marks = []
    for _ in range(20):
        start = device.event()
        call()
        marks.append((start, device.event()))
    device.wait()
    return statistics.median(device.elapsed_ms(start, end) for start, end in marks)


def torch_runs(device, features, upstream, shape, dtype) -> dict:
    """torch eager and torch.compile on the same tensors; nothing where the device is not torch's."""
    if not isinstance(device, gpu.TorchDevice):
        return {}
    torch, (batch, count, width) = device.torch, shape
    x = features.view(getattr(torch, dtype)).view(shape).detach().requires_grad_()
    up = upstream.view(getattr(torch, dtype)).view(batch, -1)
    rows, columns = torch.tril_indices(count, count, -1, device="cuda")
    padding = up.shape[1] - width - len(rows)

    def interact(x):
        dots = torch.bmm(x, x.transpose(1, 2))[:, rows, columns]
        return torch.nn.functional.pad(torch.cat([x[:, 0], dots], 1), (0, padding))

    runs = {}
    for name, function in (("torch eager", interact), ("torch.compile", torch.compile(interact))):
        try:
            y = function(x)
            runs[name] = (lambda f=function: f(x), lambda y=y: torch.autograd.grad(y, x, up, retain_graph=True))
        except Exception as error:  # torch.compile needs a compiler and Triton
            print(f"{dtype:>8} {name:>16} | not run: {str(error).splitlines()[0][:80]}")
    return runs


def jax_rows(shape, dtype) -> list[dict]:
    """JAX (XLA) on tensors of the same shape, by the clock over 20 calls in a row; nothing without JAX on a GPU."""
    try:
        import jax
        import jax.numpy as jnp

        if jax.default_backend() != "gpu":
            return []
    except ImportError:
        return []
    import time

    import numpy as np

    batch, count, width = shape
    rows, columns = np.tril_indices(count, -1)
    padding = gpu.output_width(count, width) - width - len(rows)

    def interact(x):
        dots = jnp.matmul(x, x.swapaxes(1, 2))[:, rows, columns]
        return jnp.pad(jnp.concatenate([x[:, 0], dots], 1), ((0, 0), (0, padding)))

    x = jax.random.normal(jax.random.key(0), shape, dtype)
    up = jax.random.normal(jax.random.key(1), (batch, gpu.output_width(count, width)), dtype)
    row = {"dtype": dtype, "implementation": "jax"}
    forward, gradient = jax.jit(interact), jax.jit(lambda x, up: jax.vjp(interact, x)[1](up)[0])
    for name, call in (("forward_ms", lambda: forward(x)), ("gradient_ms", lambda: gradient(x, up))):
        call().block_until_ready()
        start = time.perf_counter()
        for _ in range(20):
            result = call()
        result.block_until_ready()
        row[name] = 1e3 * (time.perf_counter() - start) / 20
    print(f"{dtype:>8} {'jax':>16} | {row['forward_ms']:>10.3f} {'':>14} | {row['gradient_ms']:>11.3f}", flush=True)
    return [row]
