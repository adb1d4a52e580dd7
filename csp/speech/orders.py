"""Is the corpus that shall be made there already? What was asked for stands beside its manifest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from csp.formats import writing
from csp.speech import audio

ORDER = "order.json"


def there(out: Path, order: Mapping[str, Any]) -> bool:
    """Has `out` the corpus of this order? Another one is refused; if there is none, the order is noted.

    Args:
      out: the folder, of which the manifest is written last.
      order: all that decides what is made; of what is spoken or joined, `rate` and `seed` among it.
    """
    low, high = audio.RATES
    if not low <= order.get("rate", low) <= high:
        raise ValueError(f"{order['rate']} samples a second: csp reads {low} to {high}")
    if order.get("seed", 0) < 0:
        raise ValueError(f"seed {order['seed']} must not be negative")
    order = json.loads(json.dumps(order))
    if (out / "manifest.tsv").exists():
        before = json.loads((out / ORDER).read_text()) if (out / ORDER).exists() else order
        if before != order:
            raise ValueError(f"{out} holds another corpus, {before}: choose another folder, or remove it")
        return True
    out.mkdir(parents=True, exist_ok=True)
    writing.atomically(out / ORDER, [json.dumps(order).encode()], overwrite=True)
    return False
