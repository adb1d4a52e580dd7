"""What the README shows runs, in one namespace from top to bottom, and what it promises is there."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import recognisers

import csp

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 5
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    recognisers.write(tmp_path / "runs" / "digits" / "model.safetensors", recognisers.SMALL, values="int8")
    space = {"csp": csp, "jax": jax, "jnp": jnp, "optax": optax, "samples": recognisers.sound()}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)
    assert "dense/kernel" in capsys.readouterr().out


def test_a_method_of_your_own_ends_on_its_budget():
    block = next(b for b in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "def fading" in b)
    space = {"csp": csp, "jax": jax, "jnp": jnp, "optax": optax}
    exec(compile("from csp import schedules\n" + block.split("tx = ")[0], "README.md", "exec"), space)
    tx = csp.sparsify(optax.adam(1e-2), sparsity=0.9, method=space["fading"](30))
    params = {"w": jax.random.normal(jax.random.key(0), (20, 10))}
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(30):
        updates, state = update({"w": params["w"] - 1}, state, params)
        params = optax.apply_updates(params, updates)
    csp.verify(params, sparsity=0.9)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_named_benchmarks_exist():
    for name in set(re.findall(r"`(?:python benchmarks/)?(\w+\.py)`", README)) - {"test_architecture.py"}:
        assert (ROOT / "benchmarks" / name).exists() or list((ROOT / "tests").rglob(name)), name
