"""What tests ask of a run directory, and how they stop a run."""

from csp.train import checkpoints, guard, logs


def weights(out) -> dict[str, bytes]:
    found = checkpoints.newest(out / "checkpoints")
    arrays, _ = checkpoints._read(found[0])
    return {name: x.tobytes() for name, x in arrays.items()}


def history(out) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "wall"} for record in logs.records(out / "metrics.jsonl")]


class StopAt(guard.Stop):
    """Asked to stop after so many looks."""

    def __init__(self, looks: int):
        super().__init__()
        self.left = looks

    def check(self) -> None:
        """Looks while the data are read do not count."""

    @property
    def asked(self) -> bool:
        self.left -= 1
        return self.left < 0

    @asked.setter
    def asked(self, value: bool) -> None:
        pass


def changed(recipe, old, new):
    path = recipe.with_name("other.toml")
    path.write_text(recipe.read_text().replace(old, new))
    return path
