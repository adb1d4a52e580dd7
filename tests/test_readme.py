"""What the README shows runs, in one namespace from top to bottom, and what it promises is there."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import recognisers

import csp
from csp import cli
from csp.cli import sweep as cli_sweep
from csp.train import config, sweep

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


def test_commands_say_what_a_config_takes(tmp_path):
    """Every `csp train` and `csp sweep` of the README, down to the config of its runs; no file of the reader's."""
    lines = [
        line.split("#")[0].strip()
        for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
    ]
    commands = [
        shlex.split(line.split("&&")[-1]) for line in lines if "csp train configs" in line or "csp sweep" in line
    ]
    assert len(commands) >= 6
    for words in commands:
        parser = argparse.ArgumentParser()
        overrides, given = cli.overrides(parser, words[2:])
        importlib.import_module(f"csp.cli.{words[1]}").arguments(parser)
        options = parser.parse_args(given)
        grids = [{}] if words[1] == "train" else [cli_sweep.grid(options)]
        points = sweep.points([grid for grid in grids if grid] or [{}])
        said = [[*overrides, *((key, str(value)) for key, value in point)] for point in points]
        read = [config.as_toml(config.read(ROOT / options.config, one)) for one in said]
        assert len(set(read)) == len(read), f"two points of {words} are the same"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_named_benchmarks_exist():
    for name in set(re.findall(r"`(?:python benchmarks/)?(\w+\.py)`", README)) - {"test_architecture.py"}:
        assert (ROOT / "benchmarks" / name).exists() or list((ROOT / "tests").rglob(name)), name
