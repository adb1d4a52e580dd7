"""What does exact selection without sorting cost?  python benchmarks/select.py [--quick] [--out FILE]

The scripts of this folder also find this file when they, or what they import, ask for the standard library's `select`.
Then it steps aside.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

if __name__ == "select":
    elsewhere = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
    spec = importlib.machinery.PathFinder.find_spec("select", elsewhere)
    assert spec is not None
    sys.modules["select"] = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(sys.modules["select"])

if __name__ == "__main__":
    from _selection import main

    main()
